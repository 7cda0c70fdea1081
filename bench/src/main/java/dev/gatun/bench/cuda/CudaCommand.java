package dev.gatun.bench.cuda;

import dev.gatun.Compute;
import dev.gatun.CudaDevice;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.cli.Command;
import dev.gatun.cli.CommonOptions;
import dev.gatun.kernel.CudaBackend;
import dev.gatun.kernel.CudaMatrix;
import dev.gatun.kernel.CudaMemory;
import dev.gatun.kernel.LinearCall;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.PackedWeight;
import dev.gatun.kernel.QuantizeRule;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code gatun bench cuda}: kernels on a GPU, called from Java. */
@CommandLine.Command(
    name = "cuda",
    description = {
      "Time products, dequantizing and quantizing on the first GPU, and what it costs to give it a product from Java and from C.",
      "Every time is the median over replays of a graph, of one call; the weights rotate past the GPU's last cache."
    })
public final class CudaCommand implements Command {
  /** Weights in rotation take so many times the last cache. */
  private static final int BEYOND_CACHE = 6;

  private static final int MOST_COPIES = 48;

  /** M, N and K of products of codes. */
  private static final int[][] CODES = {{8192, 8192, 8192}, {4096, 14336, 4096}};

  private static final long COPY_BYTES = 4L << 30;

  @Mixin private CommonOptions common = new CommonOptions();

  @Option(
      names = "--rows",
      paramLabel = "M,M",
      split = ",",
      defaultValue = "1,16,64,512,4096",
      description = "Numbers of rows of x; default: ${DEFAULT-VALUE}.")
  private List<Integer> rows = List.of();

  @Option(
      names = "--shape",
      paramLabel = "NxK",
      defaultValue = "14336x4096",
      description = "The weight, K a multiple of 256; default: ${DEFAULT-VALUE}.")
  private String shape = "";

  private final List<Map<String, Object>> results = new ArrayList<>();

  /** Made by the service loader. */
  public CudaCommand() {}

  @Override
  public Optional<String> parent() {
    return Optional.of("bench");
  }

  @Override
  public Integer call() {
    String[] sizes = shape.split("[xX×]", -1);
    int n = sizes.length == 2 ? size(sizes[0]) : 0;
    int k = sizes.length == 2 ? size(sizes[1]) : 0;
    if (n < 1 || k < 256 || k % 256 != 0 || (long) n * k > 1 << 30) {
      throw common.usage(
          "--shape: found '"
              + shape
              + "', expected NxK, K a multiple of 256, at most 2^30 weights");
    }
    if (rows.stream().anyMatch(m -> m < 1 || m > 1 << 16)) {
      throw common.usage("--rows: found " + rows + ", expected numbers from 1 to 65536");
    }
    try (CudaDevice gpu = Device.cuda(0);
        Arena arena = Arena.ofShared();
        var stream = gpu.stream()) {
      GpuTimer timer = new GpuTimer(stream);
      if (!common.json()) {
        common.out().println(gpu);
      }
      copy(gpu, timer);
      for (GpuWeight weight : GpuWeight.values()) {
        codecs(gpu, timer, weight, n, k, arena);
        linear(gpu, timer, weight, n, k, arena);
      }
      for (int[] size : CODES) {
        codes(gpu, timer, size[0], size[1], size[2]);
      }
      enqueue(gpu);
      if (common.json()) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("device", gpu.gpu().name());
        json.put("rows", results);
        common.printJson(json);
      }
    }
    return 0;
  }

  private static int size(String text) {
    return text.matches("\\d{1,7}") ? Integer.parseInt(text) : 0;
  }

  private static int copies(CudaDevice gpu, long bytes) {
    return Math.clamp(Math.ceilDiv(BEYOND_CACHE * gpu.gpu().l2Bytes(), bytes), 2, MOST_COPIES);
  }

  private void copy(CudaDevice gpu, GpuTimer timer) {
    try (CudaMemory from = gpu.allocate(COPY_BYTES / 2);
        CudaMemory to = gpu.allocate(COPY_BYTES / 2)) {
      row(
          "copy of 4 GiB",
          timer.microseconds(List.of(() -> timer.stream().copy(from, to))),
          COPY_BYTES);
    }
  }

  private void codecs(CudaDevice gpu, GpuTimer timer, GpuWeight weight, int n, int k, Arena arena) {
    CudaBackend cuda = gpu.cuda();
    Matrix matrix = weight.random(n, k, arena, 1);
    long weightBytes = GpuWeight.byteSize(matrix);
    long plainBytes = (long) n * k * 2;
    int copies = copies(gpu, weightBytes + plainBytes);
    List<CudaMatrix> weights = new ArrayList<>();
    List<CudaMemory> outs = new ArrayList<>();
    try {
      for (int i = 0; i < copies; i++) {
        weights.add(cuda.upload(matrix));
        outs.add(gpu.allocate(plainBytes));
      }
      List<Runnable> calls = new ArrayList<>();
      for (int i = 0; i < copies; i++) {
        CudaMatrix w = weights.get(i);
        CudaMemory out = outs.get(i);
        calls.add(() -> cuda.dequantize(timer.stream(), w, 0, n, out, Encoding.BF16));
      }
      String what = weight.label() + " " + n + "x" + k;
      row("dequantize " + what + " -> bf16", timer.microseconds(calls), weightBytes + plainBytes);
      Optional<QuantizeRule> rule = weight.rule();
      if (rule.isPresent()) {
        calls.clear();
        for (int i = 0; i < copies; i++) {
          CudaMatrix w = weights.get(i);
          CudaMemory source = outs.get(i);
          calls.add(() -> cuda.quantize(timer.stream(), w, rule.get(), source, Encoding.BF16));
        }
        row(
            "quantize bf16 " + n + "x" + k + " -> " + weight.quantizedLabel(),
            timer.microseconds(calls),
            weightBytes + plainBytes);
      }
    } finally {
      weights.forEach(CudaMatrix::close);
      outs.forEach(CudaMemory::close);
    }
  }

  private void linear(CudaDevice gpu, GpuTimer timer, GpuWeight weight, int n, int k, Arena arena) {
    CudaBackend cuda = gpu.cuda();
    Matrix matrix = weight.random(n, k, arena, 2);
    int copies = copies(gpu, GpuWeight.byteSize(matrix));
    List<PackedWeight> weights = new ArrayList<>();
    try {
      for (int i = 0; i < copies; i++) {
        weights.add(cuda.pack(matrix));
      }
      for (int m : rows) {
        // Products of zeros could be faster than others.
        try (CudaMemory x = random(gpu, (long) m * k);
            CudaMemory y = gpu.allocate((long) m * n * 2)) {
          LinearCall<CudaMemory> call =
              LinearCall.of(x, Encoding.BF16, k, m, y, Encoding.BF16, n).compute(Compute.BF16);
          List<Runnable> calls = new ArrayList<>();
          for (PackedWeight w : weights) {
            calls.add(() -> cuda.linear(timer.stream(), w, call));
          }
          row(
              "linear " + weight.label() + " " + m + "x" + n + "x" + k,
              timer.microseconds(calls),
              weights.getFirst().byteSize());
        }
      }
    } finally {
      weights.forEach(PackedWeight::close);
    }
  }

  private void codes(CudaDevice gpu, GpuTimer timer, int m, int n, int k) {
    for (GpuCodes codes : GpuCodes.values()) {
      double us = codes.microseconds(gpu, timer, m, n, k);
      long bytes = (long) m * k + (long) n * k + 2L * m * n;
      row(codes.label() + " " + m + "x" + n + "x" + k, us, bytes);
    }
  }

  /** Numbers of BF16 between -2 and 2. */
  private static CudaMemory random(CudaDevice gpu, long count) {
    try (Arena arena = Arena.ofConfined()) {
      return gpu.upload(GpuWeight.activations(count, arena));
    }
  }

  private void enqueue(CudaDevice gpu) {
    EnqueueCost cost = EnqueueCost.measure(gpu);
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("work", "enqueue");
    json.put("us", cost.javaNanos() / 1e3);
    json.put("cUs", cost.cNanos() / 1e3);
    json.put("allocatedBytes", cost.allocatedBytes());
    results.add(json);
    if (!common.json()) {
      common
          .out()
          .printf(
              Locale.ROOT,
              "%-44s %9.2f us, from C %.2f us, %.0f bytes allocated%n",
              "enqueue linear",
              cost.javaNanos() / 1e3,
              cost.cNanos() / 1e3,
              cost.allocatedBytes());
    }
  }

  private void row(String work, double us, long bytes) {
    double gbps = bytes / us / 1e3;
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("work", work);
    json.put("us", us);
    json.put("gbps", gbps);
    results.add(json);
    if (!common.json()) {
      common.out().printf(Locale.ROOT, "%-44s %9.2f us  %6.0f GB/s%n", work, us, gbps);
      common.out().flush();
    }
  }
}
