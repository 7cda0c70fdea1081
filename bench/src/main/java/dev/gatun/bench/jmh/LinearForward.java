package dev.gatun.bench.jmh;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.Linear;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Param;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/** {@code Linear.forward}: its time, and with JMH's gc profiler that it allocates nothing. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Fork(
    value = 1,
    jvmArgsAppend = {"--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector"})
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
public class LinearForward {
  /** Who multiplies. */
  @Param({"native", "vector"})
  public String backend = "";

  /** How the weight is stored. */
  @Param({"F32", "I8", "F8_E4M3", "NF4", "U4"})
  public String encoding = "";

  /** Rows of x. */
  @Param({"1", "64"})
  public int m;

  /** Outputs and inputs. */
  @Param({"384", "4096"})
  public int size;

  private final Arena arena = Arena.ofShared();
  private Device device;
  private Linear linear;
  private MemorySegment x = MemorySegment.NULL;
  private MemorySegment y = MemorySegment.NULL;

  /** Packs a random weight. */
  @Setup
  public void setUp() {
    device = Device.of(backend);
    linear =
        Linear.of(
            RandomWeights.make(Encoding.valueOf(encoding), size, size, arena),
            null,
            Compute.F32,
            device);
    x = RandomWeights.floats((long) m * size, arena);
    y = arena.allocate((long) m * size * Float.BYTES, 64);
  }

  /** Gives everything back. */
  @TearDown
  public void tearDown() {
    linear.close();
    device.close();
    arena.close();
  }

  /** y = x · Wᵀ. */
  @Benchmark
  public void forward() {
    linear.forward(x, m, y);
  }
}
