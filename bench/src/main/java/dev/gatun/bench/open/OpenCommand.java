package dev.gatun.bench.open;

import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.cli.Command;
import dev.gatun.cli.CommonOptions;
import dev.gatun.cli.DeviceOptions;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code gatun bench open}: opening a large checkpoint and its first product. */
@CommandLine.Command(
    name = "open",
    description = {
      "Time opening a checkpoint larger than 4 GiB and its first product, and how much of it then"
          + " lies in memory.",
      "The file is written to the temporary directory and deleted afterwards. Most of it is a hole,"
          + " which takes no disk."
    })
public final class OpenCommand implements Command {
  private static final double MIB = 1 << 20;

  /** A layer to warm up with: classes are loaded once, whatever the checkpoint's size. */
  private static final int SMALL = 256;

  @Mixin private CommonOptions common = new CommonOptions();
  @Mixin private DeviceOptions device = new DeviceOptions();

  @Option(
      names = "--gib",
      paramLabel = "G",
      defaultValue = "4.25",
      description = "Size of the checkpoint besides its layer; default: ${DEFAULT-VALUE}.")
  private double gib = 4.25;

  @Option(
      names = "--shape",
      paramLabel = "NxK",
      defaultValue = "8192x8192",
      description = "The layer that is multiplied; default: ${DEFAULT-VALUE}.")
  private String shape = "";

  /** Made by the service loader. */
  public OpenCommand() {}

  /** What was measured: times in nanoseconds, growth of memory since before the file was opened. */
  private record Result(
      long open, long pack, long product, Resident opened, Resident multiplied, String kernel) {}

  @Override
  public Optional<String> parent() {
    return Optional.of("bench");
  }

  @Override
  public Integer call() throws IOException {
    String[] sizes = shape.split("[xX×]", -1);
    int n = sizes.length == 2 ? size(sizes[0]) : 0;
    int k = sizes.length == 2 ? size(sizes[1]) : 0;
    if (n < 1 || k < 1 || (long) n * k > 1 << 30) {
      throw common.usage("--shape: found '" + shape + "', expected NxK, at most 2^30 weights");
    }
    if (!(gib > 0 && gib <= 1024)) {
      throw common.usage("--gib: found " + gib + ", expected more than 0 and at most 1024");
    }
    Path file = Files.createTempFile("gatun-open-", ".safetensors");
    file.toFile().deleteOnExit();
    try (Device on = device.open()) {
      SparseCheckpoint.write(file, SMALL, SMALL, SMALL);
      measure(file, on);
      SparseCheckpoint.write(file, (long) (gib * (1 << 30)), n, k);
      report(measure(file, on), Files.size(file), n, k, on);
    } finally {
      Files.deleteIfExists(file);
    }
    return 0;
  }

  private static int size(String text) {
    return text.matches("\\d{1,9}") ? Integer.parseInt(text) : 0;
  }

  private static Result measure(Path file, Device on) {
    Resident before = Resident.now();
    long start = System.nanoTime();
    try (Checkpoint checkpoint = Checkpoint.open(file)) {
      long opened = System.nanoTime();
      Resident afterOpening = Resident.now().since(before);
      long packing = System.nanoTime();
      try (Linear linear = checkpoint.linear(SparseCheckpoint.LAYER, on)) {
        float[] x = numbers(linear.inFeatures());
        float[] y = new float[Math.toIntExact(linear.outFeatures())];
        long packed = System.nanoTime();
        linear.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(y));
        long end = System.nanoTime();
        Resident afterProduct = Resident.now().since(before);
        check(checkpoint, x, y);
        return new Result(
            opened - start,
            packed - packing,
            end - packed,
            afterOpening,
            afterProduct,
            linear.kernel(1));
      }
    }
  }

  private static float[] numbers(long count) {
    float[] x = new float[Math.toIntExact(count)];
    for (int i = 0; i < x.length; i++) {
      x[i] = (i % 7 - 3) / 4f;
    }
    return x;
  }

  /** Compares with the definition, to the bound of floats' sums. */
  private static void check(Checkpoint checkpoint, float[] x, float[] y) {
    float[] expected = new float[y.length];
    try (Device reference = Device.of("reference");
        Linear linear = checkpoint.linear(SparseCheckpoint.LAYER, reference)) {
      linear.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(expected));
    }
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < y.length; i++) {
      difference += Math.pow((double) y[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    double distance = Math.sqrt(difference / norm);
    if (!(distance <= 1e-6 * Math.sqrt(x.length))) {
      throw new GatunException(
          "bench open: found a product that differs by "
              + distance
              + ", expected the definition's");
    }
  }

  private void report(Result result, long bytes, long n, long k, Device on) {
    if (common.json()) {
      Map<String, Object> json = new LinkedHashMap<>();
      json.put("fileMiB", bytes / MIB);
      json.put("layerMiB", n * k / MIB);
      json.put("backend", on.name());
      json.put("threads", on.threads());
      json.put("kernel", result.kernel);
      json.put("openMs", result.open / 1e6);
      json.put("packMs", result.pack / 1e6);
      json.put("productMs", result.product / 1e6);
      json.put(
          "growthMiB", Map.of("opened", mib(result.opened), "product", mib(result.multiplied)));
      common.printJson(json);
      return;
    }
    line("checkpoint %.0f MiB, layer %.1f MiB, %s", bytes / MIB, n * k / MIB, result.kernel);
    step("opened", result.open, result.opened);
    line("packed: %.2f ms", result.pack / 1e6);
    step("first product", result.product, result.multiplied);
  }

  private static Map<String, Object> mib(Resident growth) {
    return Map.of("own", growth.own() / MIB, "mapped", growth.mapped() / MIB);
  }

  private void step(String what, long nanos, Resident growth) {
    line(
        "%s: %.2f ms; memory since before: %.1f MiB of its own, %.1f MiB of the mapped file",
        what, nanos / 1e6, growth.own() / MIB, growth.mapped() / MIB);
  }

  private void line(String format, Object... values) {
    common.out().println(String.format(Locale.ROOT, format, values));
  }
}
