package dev.gatun.bench.jmh;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GroupedLinear;
import dev.gatun.Linear;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
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

/** Sixteen experts in one call beside one call after the other. */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.MICROSECONDS)
@Fork(
    value = 1,
    jvmArgsAppend = {"--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector"})
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
public class GroupedForward {
  private static final int EXPERTS = 16;
  private static final int SIZE = 1024;

  /** How the weights are stored. */
  @Param({"U4", "NF4"})
  public String encoding = "";

  /** Rows of each expert; every fourth has none. */
  @Param({"1", "8"})
  public int rows;

  private final Arena arena = Arena.ofShared();
  private final List<Linear> experts = new ArrayList<>();
  private final long[] offsets = new long[EXPERTS + 1];
  private Device device;
  private GroupedLinear group;
  private MemorySegment x = MemorySegment.NULL;
  private MemorySegment y = MemorySegment.NULL;

  /** Packs random weights. */
  @Setup
  public void setUp() {
    device = Device.of("native");
    for (int e = 0; e < EXPERTS; e++) {
      experts.add(
          Linear.of(
              RandomWeights.make(Encoding.valueOf(encoding), SIZE, SIZE, arena),
              null,
              Compute.BF16,
              device));
      offsets[e + 1] = offsets[e] + (e % 4 == 3 ? 0 : rows);
    }
    group = GroupedLinear.of(experts);
    x = RandomWeights.floats(offsets[EXPERTS] * SIZE, arena);
    y = arena.allocate(offsets[EXPERTS] * SIZE * Float.BYTES, 64);
  }

  /** Gives everything back. */
  @TearDown
  public void tearDown() {
    group.close();
    device.close();
    arena.close();
  }

  /** One call. */
  @Benchmark
  public void together() {
    group.forward(x, offsets, y);
  }

  /** A call for each expert that has rows. */
  @Benchmark
  public void oneByOne() {
    for (int e = 0; e < EXPERTS; e++) {
      long count = offsets[e + 1] - offsets[e];
      if (count > 0) {
        long from = offsets[e] * SIZE * Float.BYTES;
        experts.get(e).forward(x.asSlice(from), count, y.asSlice(from));
      }
    }
  }
}
