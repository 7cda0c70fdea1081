package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * Who runs the operations: {@code reference} (plain Java, the definition), {@code vector} (pure
 * Java on the Vector API), {@code native} (C) or {@code cuda}. Shapes, sizes and liveness are
 * checked by the implementation before it touches memory; what it cannot do it refuses with a
 * reason.
 */
public interface Backend {
  /** One row of a backend's kernel table. */
  record Kernel(
      Operation operation, Encoding encoding, Optional<Compute> compute, String isa, String name) {}

  /** {@code reference}, {@code vector}, {@code native} or {@code cuda}. */
  String name();

  /** Everything that this backend can run on this machine. */
  List<Kernel> kernels();

  /**
   * Why this backend cannot run the operation on this matrix, in one clause ("no kernel for nf4
   * with compute i8"); empty when it can.
   */
  Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute);

  /** The name of the kernel that would run; empty when there is none. */
  default Optional<String> kernel(
      Operation operation, Encoding encoding, Optional<Compute> compute) {
    return kernels().stream()
        .filter(
            k ->
                k.operation() == operation
                    && k.encoding() == encoding
                    && k.compute().equals(compute))
        .map(Kernel::name)
        .findFirst();
  }

  /**
   * Rows {@code row0 .. row0+rows-1} as {@code outType} (F32, F16, BF16), row-major without gaps,
   * into {@code out}.
   *
   * @return the name of the kernel that ran
   */
  String dequantize(Matrix matrix, long row0, long rows, MemorySegment out, Encoding outType);

  /** Row {@code ids[i]} as row i of {@code out}. */
  String embedding(Matrix matrix, long[] ids, MemorySegment out, Encoding outType);

  /**
   * Fills the codes and, unless the rule keeps them, the scales of {@code matrix} from N × K
   * numbers.
   */
  String quantize(Matrix matrix, QuantizeRule rule, MemorySegment w, Encoding wType);

  /**
   * {@code dst[i] = src[i]} between F32, F16, BF16 and the 8-bit floats, to nearest even.
   *
   * @param saturate clamp to the largest finite value of an 8-bit float instead of PyTorch's
   *     overflow
   */
  String convert(
      MemorySegment src,
      Encoding srcType,
      MemorySegment dst,
      Encoding dstType,
      long count,
      boolean saturate);

  /** Lays the matrix out for {@link #linear}. The matrix's memory is not needed afterwards. */
  PackedWeight pack(Matrix matrix);

  /**
   * The inverse of {@link #pack}, bit for bit: fills the buffers of {@code into}, described as the
   * packed matrix was.
   */
  void unpack(PackedWeight packed, Matrix into);

  /**
   * y = x · Wᵀ + bias. Allocates nothing once warm; safe for concurrent callers.
   *
   * @param x M × K of {@code xType}, rows {@code ldx} elements apart
   * @param y M × N of {@code yType}, rows {@code ldy} elements apart; must not overlap x
   * @param bias N floats, or null
   * @param threads 0: as many as the backend has
   */
  void linear(
      PackedWeight packed,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      @Nullable MemorySegment bias,
      Compute compute,
      int threads);
}
