package dev.gatun.bench.jmh;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.bench.Probe;
import dev.gatun.bindings.NativeLibrary;
import dev.gatun.bindings.gatun_h;
import dev.gatun.bindings.gatun_matrix;
import dev.gatun.checkpoint.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.openjdk.jmh.annotations.Benchmark;
import org.openjdk.jmh.annotations.BenchmarkMode;
import org.openjdk.jmh.annotations.Fork;
import org.openjdk.jmh.annotations.Measurement;
import org.openjdk.jmh.annotations.Mode;
import org.openjdk.jmh.annotations.OperationsPerInvocation;
import org.openjdk.jmh.annotations.OutputTimeUnit;
import org.openjdk.jmh.annotations.Scope;
import org.openjdk.jmh.annotations.Setup;
import org.openjdk.jmh.annotations.State;
import org.openjdk.jmh.annotations.TearDown;
import org.openjdk.jmh.annotations.Warmup;

/**
 * What a call from Java costs over the same call from C: the difference between {@code …FromJava}
 * and {@code …FromC}. The trivial function has no arguments; {@code gatun_linear} has nineteen, and
 * multiplies by the smallest weight there is. {@code forward} is what a user calls: the same
 * product with all of Java's checks.
 */
@State(Scope.Thread)
@BenchmarkMode(Mode.AverageTime)
@OutputTimeUnit(TimeUnit.NANOSECONDS)
@Fork(
    value = 1,
    jvmArgsAppend = {"--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector"})
@Warmup(iterations = 3, time = 1)
@Measurement(iterations = 5, time = 1)
public class CallCost {
  private static final int CALLS = 100_000;

  private final Arena arena = Arena.ofShared();
  private final MemorySegment x = arena.allocate(64, 64);
  private final MemorySegment y = arena.allocate(64, 64);
  private final int compute = Compute.F32.id();
  private MemorySegment packed = MemorySegment.NULL;
  private MemorySegment workspace = MemorySegment.NULL;
  private Probe probe;
  private Device device;
  private Linear linear;

  /** Loads the libraries and packs a weight of 1 × 1. */
  @Setup
  public void setUp() {
    if (NativeLibrary.load() instanceof NativeLibrary.Missing missing) {
      throw new GatunException(missing.describe());
    }
    probe = Probe.open();
    device = Device.of("native", 1);
    Tensor weight =
        new Tensor(
            "one", DType.F32, List.of(1L, 1L), arena.allocateFrom(ValueLayout.JAVA_FLOAT, 2f));
    linear = Linear.of(weight, null, Compute.F32, device);

    MemorySegment matrix = gatun_matrix.allocate(arena);
    gatun_matrix.n(matrix, 1);
    gatun_matrix.k(matrix, 1);
    gatun_matrix.encoding(matrix, gatun_h.GATUN_F32());
    gatun_matrix.codes(matrix, weight.data());
    gatun_matrix.codes_size(matrix, Float.BYTES);
    gatun_matrix.offset_sign(matrix, 1);
    gatun_matrix.block_rows(matrix, 1);
    gatun_matrix.block_cols(matrix, 1);
    gatun_matrix.scale_row_stride(matrix, 1);
    gatun_matrix.scale_col_stride(matrix, 1);
    gatun_matrix.global_scale(matrix, 1);
    gatun_matrix.arithmetic(matrix, gatun_h.GATUN_F32());
    gatun_matrix.result(matrix, gatun_h.GATUN_F32());
    MemorySegment size = arena.allocate(ValueLayout.JAVA_LONG);
    check(gatun_h.gatun_packed_size(matrix, size));
    packed = arena.allocate(size.get(ValueLayout.JAVA_LONG, 0), 64);
    check(gatun_h.gatun_pack(matrix, packed, packed.byteSize(), 1));
    check(gatun_h.gatun_linear_workspace(packed, packed.byteSize(), 1, compute, 1, size));
    workspace = arena.allocate(Math.max(64, size.get(ValueLayout.JAVA_LONG, 0)), 64);
  }

  private static void check(int status) {
    if (status != gatun_h.GATUN_OK()) {
      throw new GatunException("libgatun: " + gatun_h.gatun_last_error().getString(0));
    }
  }

  /** Gives everything back. */
  @TearDown
  public void tearDown() {
    linear.close();
    device.close();
    probe.close();
    arena.close();
  }

  /** A function without arguments. */
  @Benchmark
  public int trivialFromJava() {
    return gatun_h.gatun_abi_version();
  }

  /** The same function from C. */
  @Benchmark
  @OperationsPerInvocation(CALLS)
  public double trivialFromC() {
    return probe.call(gatun_h.gatun_abi_version$address(), CALLS);
  }

  /** The smallest product, straight through the bindings. */
  @Benchmark
  public int linearFromJava() {
    return gatun_h.gatun_linear(
        packed,
        packed.byteSize(),
        x,
        gatun_h.GATUN_F32(),
        1,
        1,
        y,
        gatun_h.GATUN_F32(),
        1,
        MemorySegment.NULL,
        MemorySegment.NULL,
        gatun_h.GATUN_ACTIVATION_NONE(),
        gatun_h.GATUN_COMBINE_NONE(),
        MemorySegment.NULL,
        0,
        compute,
        gatun_h.GATUN_ISA_BEST(),
        1,
        workspace,
        workspace.byteSize());
  }

  /** The smallest product, from C. */
  @Benchmark
  @OperationsPerInvocation(CALLS)
  public double linearFromC() {
    return probe.linear(
        gatun_h.gatun_linear$address(), CALLS, packed, x, 1, 1, y, 1, compute, workspace);
  }

  /** The smallest product, as a user calls it. */
  @Benchmark
  public void forward() {
    linear.forward(x, 1, y);
  }
}
