package dev.gatun.cli;

import dev.gatun.Compute;
import dev.gatun.CudaDevice;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.kernel.CudaGraph;
import dev.gatun.kernel.CudaMemory;
import dev.gatun.kernel.CudaStream;
import dev.gatun.layout.LayoutRegistry;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code gatun bench linear}: time of one linear layer of random weights. */
@CommandLine.Command(
    name = "linear",
    description = {
      "Time y = x · Wᵀ for random data: the median over many calls after a warm-up.",
      "At M ≤ 8 the calls go round several copies of the weight that together are larger than the caches, as in a model"
          + " that makes one token at a time.",
      "On a GPU x, y and the weight lie in its memory, and the time is the GPU's own, of calls recorded as a graph."
    })
public final class BenchLinear implements Callable<Integer> {
  private static final Pattern SHAPE =
      Pattern.compile("(\\d{1,18})[xX×](\\d{1,18})[xX×](\\d{1,18})");

  /** Up to this many rows the weight's bytes are what takes the time. */
  private static final long FEW_ROWS = 8;

  private static final int FEWEST_CALLS = 5;
  private static final int MOST_CALLS = 5_000;

  @Mixin private CommonOptions common = new CommonOptions();
  @Mixin private DeviceOptions device = new DeviceOptions();

  @Option(
      names = "--encoding",
      required = true,
      paramLabel = "E",
      description = "How the weight's codes are stored: ${COMPLETION-CANDIDATES}.")
  private Encoding encoding = Encoding.F32;

  @Option(
      names = "--shape",
      required = true,
      paramLabel = "MxNxK",
      description = "Rows of x, outputs, inputs.")
  private String shape = "";

  @Option(
      names = "--compute",
      paramLabel = "C",
      defaultValue = "F32",
      description =
          "What the multiply is done in: ${COMPLETION-CANDIDATES}; default: ${DEFAULT-VALUE}.")
  private Compute compute = Compute.F32;

  @Option(
      names = "--seconds",
      paramLabel = "S",
      defaultValue = "1.5",
      description =
          "How long to measure, after a third of that to warm up; default: ${DEFAULT-VALUE}.")
  private double seconds = 1.5;

  /** Made by picocli. */
  BenchLinear() {}

  private record Shape(long m, long n, long k) {}

  @Override
  public Integer call() {
    Shape size = shape();
    if (!RandomWeight.canBeMade(encoding)) {
      throw common.usage(
          "--encoding: found "
              + encoding
              + ", which is for scales only, expected one of "
              + RandomWeight.encodings());
    }
    if (!(seconds > 0 && seconds <= 3600)) {
      throw common.usage("--seconds: found " + seconds + ", expected more than 0 and at most 3600");
    }
    try (Device on = device.open();
        Arena arena = Arena.ofShared()) {
      QuantizedTensor weight = RandomWeight.make(encoding, size.n, size.k, arena);
      long cache = on instanceof CudaDevice gpu ? gpu.gpu().l2Bytes() : Caches.largest();
      int copies = size.m <= FEW_ROWS ? Caches.copiesBeyond(weight.byteSize(), cache) : 1;
      List<Linear> layers = new ArrayList<>();
      try {
        for (int i = 0; i < copies; i++) {
          layers.add(Linear.of(weight, null, compute, on));
        }
        RunningKernel kernel = RunningKernel.of(layers.getFirst(), size.m, on);
        refuseFallback(weight, layers.getFirst(), kernel, size.m, on);
        MemorySegment x = RandomWeight.activations(Math.multiplyExact(size.m, size.k), arena);
        MemorySegment y =
            arena.allocate(Math.multiplyExact(Math.multiplyExact(size.m, size.n), 4L), 64);
        double nanos =
            on instanceof CudaDevice gpu && kernel.backend().equals(gpu.name())
                ? medianNanos(gpu, layers, x, size.m, y)
                : medianNanos(layers, x, size.m, y);
        report(size, on, kernel, weight.byteSize(), nanos);
      } finally {
        layers.forEach(Linear::close);
      }
    } catch (ArithmeticException e) {
      throw common.usage("--shape: found " + shape + ", whose sizes overflow");
    }
    return 0;
  }

  private Shape shape() {
    Matcher parts = SHAPE.matcher(shape);
    if (parts.matches()) {
      Shape size = new Shape(number(parts, 1), number(parts, 2), number(parts, 3));
      if (size.m >= 1 && size.n >= 1 && size.k >= 1) {
        return size;
      }
    }
    throw common.usage(
        "--shape: found '" + shape + "', expected MxNxK, three whole numbers of at least 1");
  }

  private static long number(Matcher parts, int group) {
    return Long.parseLong(parts.group(group));
  }

  /** A measurement of something else than what was asked for would mislead. */
  private void refuseFallback(
      QuantizedTensor weight, Linear linear, RunningKernel ran, long m, Device on) {
    boolean otherBackend = device.backend().isPresent() && !ran.backend().equals(on.name());
    if (linear.compute() == compute && !otherBackend) {
      return;
    }
    List<String> reasons = LayoutRegistry.get().explain(weight, m, on, compute).lines();
    throw new GatunException(
        "bench linear: nothing on "
            + on
            + " multiplies "
            + encoding
            + " with compute "
            + compute
            + " ("
            + String.join("; ", reasons)
            + ")");
  }

  private double medianNanos(List<Linear> layers, MemorySegment x, long m, MemorySegment y) {
    long nanos = Math.round(seconds * 1e9);
    long begin = System.nanoTime();
    int call = 0;
    do {
      layers.get(call++ % layers.size()).forward(x, m, y);
    } while (System.nanoTime() - begin < nanos / 3);
    long[] times = new long[MOST_CALLS];
    int count = 0;
    begin = System.nanoTime();
    long end = begin;
    while (count < FEWEST_CALLS || (end - begin < nanos && count < MOST_CALLS)) {
      Linear layer = layers.get(call++ % layers.size());
      long start = System.nanoTime();
      layer.forward(x, m, y);
      end = System.nanoTime();
      times[count++] = end - start;
    }
    Arrays.sort(times, 0, count);
    return (times[(count - 1) / 2] + times[count / 2]) / 2.0;
  }

  /** The device's own time, of memory that lies there: a round over the layers, recorded. */
  private double medianNanos(
      CudaDevice gpu, List<Linear> layers, MemorySegment x, long m, MemorySegment y) {
    try (CudaStream stream = gpu.stream();
        CudaMemory onX = gpu.upload(x);
        CudaMemory onY = gpu.allocate(y.byteSize());
        CudaGraph round =
            stream.capture(() -> layers.forEach(l -> l.forward(stream, onX, m, onY)))) {
      long end = System.nanoTime() + Math.round(seconds * 1e9);
      double[] times = new double[MOST_CALLS];
      int count = 0;
      stream.milliseconds(() -> round.launch(stream));
      while (count < FEWEST_CALLS || (System.nanoTime() < end && count < MOST_CALLS)) {
        double ms = stream.milliseconds(() -> round.launch(stream));
        times[count++] = ms * 1e6 / layers.size();
      }
      Arrays.sort(times, 0, count);
      return (times[(count - 1) / 2] + times[count / 2]) / 2.0;
    }
  }

  private void report(Shape size, Device on, RunningKernel kernel, long weightBytes, double nanos) {
    double gflops = 2.0 * size.m * size.n * size.k / nanos;
    double weightGBps = weightBytes / nanos;
    if (!common.json()) {
      common
          .out()
          .println(
              "linear "
                  + encoding
                  + " "
                  + size.m
                  + " x "
                  + size.n
                  + " x "
                  + size.k
                  + ", compute "
                  + Words.of(compute)
                  + ", "
                  + (on instanceof CudaDevice
                      ? on.toString()
                      : kernel.backend() + " with " + on.threads() + " threads")
                  + ", "
                  + kernel.kernel()
                  + ": "
                  + Units.significant(nanos / 1e6)
                  + " ms, "
                  + Units.significant(gflops)
                  + " GFLOP/s, weight "
                  + Units.significant(weightGBps)
                  + " GB/s");
      return;
    }
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("encoding", encoding.name());
    json.put("m", size.m);
    json.put("n", size.n);
    json.put("k", size.k);
    json.put("compute", Words.of(compute));
    json.put("backend", kernel.backend());
    json.put("threads", on.threads());
    json.put("kernel", kernel.kernel());
    json.put("ms", nanos / 1e6);
    json.put("gflops", gflops);
    json.put("weightGBps", weightGBps);
    common.printJson(json);
  }
}
