package dev.gatun.bench.jmh;

import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * Quantizing and dequantizing beside a plain copy of the same floats. An operation is one byte of
 * floats, so that operations a nanosecond are GB a second of the float side.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.Throughput)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Fork(
    value = 1,
    jvmArgsAppend = {"--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector"})
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
public class Codecs {
  private static final int SIZE = 4096;
  private static final int BYTES = SIZE * SIZE * Float.BYTES;

  /** Who does it. */
  @Param({"native", "vector"})
  public String backend = "";

  /** To and from what. */
  @Param({"I8", "F8_E4M3", "NF4", "I4"})
  public String encoding = "";

  private final Arena arena = Arena.ofShared();
  private Device device;
  private Backend runs;
  private Matrix matrix;
  private MemorySegment floats = MemorySegment.NULL;
  private MemorySegment out = MemorySegment.NULL;

  /** Makes floats and their codes. */
  @Setup
  public void setUp() {
    device = Device.of(backend);
    runs = device.backend();
    matrix = RandomWeights.empty(Encoding.valueOf(encoding), SIZE, SIZE, arena);
    floats = RandomWeights.floats((long) SIZE * SIZE, arena);
    out = arena.allocate(BYTES, 64);
    quantize();
  }

  /** Gives everything back. */
  @TearDown
  public void tearDown() {
    device.close();
    arena.close();
  }

  /** Floats to codes and scales. */
  @Benchmark
  @OperationsPerInvocation(BYTES)
  public void quantize() {
    RandomWeights.quantize(runs, matrix, floats);
  }

  /** Codes and scales to floats. */
  @Benchmark
  @OperationsPerInvocation(BYTES)
  public void dequantize() {
    runs.dequantize(matrix, 0, SIZE, out, Encoding.F32);
  }

  /** The floats copied by one thread. */
  @Benchmark
  @OperationsPerInvocation(BYTES)
  public void copy() {
    out.copyFrom(floats);
  }
}
