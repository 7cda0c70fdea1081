package dev.gatun.bench.quantize;

import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.cli.Command;
import dev.gatun.cli.CommonOptions;
import dev.gatun.cli.DeviceOptions;
import dev.gatun.quantize.NameFilter;
import dev.gatun.quantize.ProgressListener;
import dev.gatun.quantize.QuantizePlan;
import dev.gatun.quantize.Quantizer;
import dev.gatun.quantize.Report;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code gatun bench quantize}: quantizing a large checkpoint beside copying it. */
@CommandLine.Command(
    name = "quantize",
    description = {
      "Quantize a generated checkpoint to each format, in turns with a plain copy of the same file"
          + " (Files.copy, read through the page cache and forced to disk as our output is): GB of source"
          + " a second, the share of the copy's speed, the time on the cores, and the largest memory.",
      "The files are written to --directory and deleted afterwards."
    })
public final class QuantizeBenchCommand implements Command {
  private static final Path STATUS = Path.of("/proc/self/status");
  private static final Path CLEAR = Path.of("/proc/self/clear_refs");

  @Mixin private CommonOptions common = new CommonOptions();
  @Mixin private DeviceOptions device = new DeviceOptions();

  @Option(
      names = "--gib",
      paramLabel = "G",
      defaultValue = "2",
      description = "Size of the checkpoint; default: ${DEFAULT-VALUE}.")
  private double gib = 2;

  @Option(
      names = "--shape",
      paramLabel = "NxK",
      defaultValue = "8192x8192",
      description = "Of every layer; default: ${DEFAULT-VALUE}.")
  private String shape = "";

  @Option(
      names = "--dtype",
      paramLabel = "T",
      defaultValue = "bf16",
      description = "bf16 or f32; default: ${DEFAULT-VALUE}.")
  private String dtype = "";

  @Option(
      names = "--formats",
      paramLabel = "F",
      split = ",",
      defaultValue = "float8_e4m3fn,qint8,nf4",
      description = "Formats; default: ${DEFAULT-VALUE}.")
  private List<String> formats = List.of();

  @Option(
      names = "--rounds",
      paramLabel = "R",
      defaultValue = "3",
      description = "How often each is done; the best counts. Default: ${DEFAULT-VALUE}.")
  private int rounds = 3;

  @Option(
      names = "--directory",
      paramLabel = "DIR",
      description = "Where the files are written; default: the temporary directory.")
  private Path directory = Path.of(System.getProperty("java.io.tmpdir"));

  /** Made by the service loader. */
  public QuantizeBenchCommand() {}

  /** The best round of one format, or of the copy. */
  private static final class Best {
    double seconds = Double.POSITIVE_INFINITY;
    double processor = Double.POSITIVE_INFINITY;
    long peak;
  }

  @Override
  public Optional<String> parent() {
    return Optional.of("bench");
  }

  @Override
  public Integer call() throws IOException {
    String[] sizes = shape.split("[xX×]", -1);
    long n = sizes.length == 2 ? size(sizes[0]) : 0;
    long k = sizes.length == 2 ? size(sizes[1]) : 0;
    if (n < 1 || k < 1 || n * k > 1L << 32) {
      throw common.usage("--shape: found '" + shape + "', expected NxK, at most 2^32 weights");
    }
    if (!dtype.equals("bf16") && !dtype.equals("f32")) {
      throw common.usage("--dtype: found '" + dtype + "', expected bf16 or f32");
    }
    Encoding type = dtype.equals("f32") ? Encoding.F32 : Encoding.BF16;
    double layers = gib * (1 << 30) / ((double) n * k * type.bits() / 8);
    if (!(layers >= 1 && gib <= 1024)) {
      throw common.usage("--gib: found " + gib + ", expected at least a layer and at most 1024");
    }
    if (rounds < 1 || rounds > 100) {
      throw common.usage("--rounds: found " + rounds + ", expected 1 to 100");
    }
    for (String format : formats) {
      if (!Quantizer.formats().containsKey(format)) {
        throw common.usage("--formats: found '" + format + "', expected a format to write");
      }
    }
    Path work = Files.createTempDirectory(directory, "gatun-quantize-");
    Path source = work.resolve("source.safetensors");
    try (Device on = device.open()) {
      RandomCheckpoint.write(source, (int) layers, n, k, type);
      measure(source, work, n * k * type.bits() / 8, on);
    } finally {
      Files.deleteIfExists(source);
      Files.deleteIfExists(work);
    }
    return 0;
  }

  private static long size(String text) {
    return text.matches("\\d{1,9}") ? Long.parseLong(text) : 0;
  }

  private void measure(Path source, Path work, long largest, Device on) throws IOException {
    Best copy = new Best();
    Map<String, Best> best = new LinkedHashMap<>();
    formats.forEach(format -> best.put(format, new Best()));
    for (int round = 0; round < rounds; round++) {
      take(copy, () -> copy(source, work.resolve("copy")));
      for (String format : formats) {
        take(best.get(format), () -> quantize(source, work.resolve("out"), format, on));
      }
    }
    double gb = Files.size(source) / 1e9;
    List<Map<String, Object>> rows = new ArrayList<>();
    rows.add(row("copy", gb, copy, copy));
    best.forEach((format, b) -> rows.add(row(format, gb, b, copy)));
    if (common.json()) {
      common.printJson(rows);
      return;
    }
    line(
        "%.2f GB, largest tensor %.0f MiB, %s, %d threads, best of %d",
        gb, largest / (double) (1 << 20), on.name(), on.threads(), rounds);
    line("| format | s | GB/s of source | of the copy | processor, s | peak memory, MiB |");
    line("| --- | ---: | ---: | ---: | ---: | ---: |");
    for (Map<String, Object> row : rows) {
      line(
          "| %s | %.2f | %.2f | %.2f | %.2f | %.0f |",
          row.get("format"),
          row.get("s"),
          row.get("GBps"),
          row.get("ofCopy"),
          row.get("processorSeconds"),
          row.get("peakMiB"));
    }
  }

  private static Map<String, Object> row(String name, double gb, Best best, Best copy) {
    Map<String, Object> row = new LinkedHashMap<>();
    row.put("format", name);
    row.put("s", best.seconds);
    row.put("GBps", gb / best.seconds);
    row.put("ofCopy", copy.seconds / best.seconds);
    row.put("processorSeconds", best.processor);
    row.put("peakMiB", best.peak / 1024.0);
    return row;
  }

  /** Something that writes files. */
  private interface Task {
    /** What it has written. */
    List<Path> run() throws IOException;
  }

  private static void take(Best best, Task task) throws IOException {
    forgetPeak();
    Duration before = processor();
    long start = System.nanoTime();
    List<Path> files = task.run();
    double seconds = (System.nanoTime() - start) * 1e-9;
    best.seconds = Math.min(best.seconds, seconds);
    best.processor = Math.min(best.processor, processor().minus(before).toNanos() * 1e-9);
    best.peak = Math.max(best.peak, peak());
    for (Path file : files) {
      Files.deleteIfExists(file);
    }
  }

  /** What this process has had of the cores. */
  private static Duration processor() {
    return ProcessHandle.current().info().totalCpuDuration().orElse(Duration.ZERO);
  }

  private static List<Path> copy(Path source, Path target) throws IOException {
    Files.copy(source, target);
    try (FileChannel channel = FileChannel.open(target, StandardOpenOption.WRITE)) {
      channel.force(true);
    }
    return List.of(target);
  }

  private static List<Path> quantize(Path source, Path target, String format, Device on) {
    try (Checkpoint checkpoint = Checkpoint.open(source)) {
      Report report =
          Quantizer.quantize(
              checkpoint,
              target,
              QuantizePlan.of(format, NameFilter.DEFAULT),
              on.operations(),
              on.threads(),
              ProgressListener.NONE);
      return report.files();
    }
  }

  /** Lets Linux count the largest memory anew. */
  private static void forgetPeak() throws IOException {
    Files.writeString(CLEAR, "5");
  }

  /** The largest memory in RAM since then, mapped files included, in KiB. */
  private static long peak() throws IOException {
    return Files.readAllLines(STATUS).stream()
        .filter(line -> line.startsWith("VmHWM:"))
        .mapToLong(line -> Long.parseLong(line.replaceAll("\\D", "")))
        .findFirst()
        .orElseThrow(() -> new GatunException(STATUS + ": found no VmHWM, expected Linux's"));
  }

  private void line(String format, Object... values) {
    common.out().println(String.format(Locale.ROOT, format, values));
  }
}
