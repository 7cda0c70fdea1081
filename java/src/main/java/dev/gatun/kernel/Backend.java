package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Rounding;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
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
   * How that kernel does it for {@code m} rows of x, and why so, for people; empty where there is
   * nothing to say. What a call brings besides, such as an epilogue, is not known here.
   */
  default Optional<String> how(
      Operation operation, Matrix matrix, Optional<Compute> compute, long m) {
    return Optional.empty();
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
   * How far rows {@code row0 .. row0+rows-1}, as {@link #dequantize} gives them in F32, are from
   * the numbers that they were made of. Runs on the calling thread.
   *
   * @param w the same rows of numbers, row-major without gaps
   * @param wType F32, F16 or BF16
   */
  default Deviation deviation(
      Matrix matrix, long row0, long rows, MemorySegment w, Encoding wType) {
    return Deviation.of(this, matrix, row0, rows, w, wType);
  }

  /**
   * The same operations, each on the calling thread alone: for those who share work out among
   * threads themselves. Itself where that makes no difference.
   */
  default Backend onOneThread() {
    return this;
  }

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
   * Names the form that {@link #pack} makes when it can be kept outside this process: bytes made
   * under one name mean the same wherever a backend gives that name. Empty when it cannot.
   */
  default Optional<String> packedForm() {
    return Optional.empty();
  }

  /**
   * The bytes of a packed weight, for a backend with a {@link #packedForm()}; they end with it.
   *
   * @throws GatunException when there is no such form
   */
  default MemorySegment packedBytes(PackedWeight packed) {
    throw new GatunException(name() + ": found no packed form that can be kept, expected one");
  }

  /**
   * Takes bytes of {@link #packedBytes} for a packed weight, as they lie. What the header says is
   * checked against the matrix; codes and scales are not looked at.
   *
   * @param matrix what was packed; its memory is not read
   * @param bytes native memory, 64-byte aligned
   * @param arena whose memory that is: closed with the packed weight, if this returns one
   * @throws GatunException when the bytes are not the matrix's
   */
  default PackedWeight adopt(Matrix matrix, MemorySegment bytes, Arena arena) {
    throw new GatunException(name() + ": found no packed form that can be kept, expected one");
  }

  /**
   * The inverse of {@link #pack}, bit for bit: fills the buffers of {@code into}, described as the
   * packed matrix was.
   */
  void unpack(PackedWeight packed, Matrix into);

  /**
   * y = combine(activation(x' · Wᵀ + bias), other). Allocates nothing once warm; safe for
   * concurrent callers, each with a call of its own.
   *
   * <p>With compute type I8, a row of x with NaN or infinity has no scale: the backends of the host
   * multiply it as it is, and {@code cuda} makes the row NaN.
   *
   * @throws GatunException when the weight is another backend's or the call does not fit it
   * @throws IndexOutOfBoundsException when memory is too short
   */
  void linear(PackedWeight packed, LinearCall<MemorySegment> call);

  /**
   * Weights that are multiplied together, each for a run of rows of its own. The weights stay the
   * caller's, who keeps them open for as long as the group is used.
   *
   * @param experts at least one, packed by this backend, all N × K
   * @throws GatunException when they do not go together
   */
  default PackedGroup group(List<PackedGroup.Expert> experts) {
    return new LoopedGroup(this, experts);
  }

  /**
   * Rounds {@code rows} × {@code columns} numbers as a calibrated layer does: {@code y = round(x ·
   * xMultiplier)}, the product rounded to {@code xType} too.
   *
   * @param xMultiplier one float a column, or null
   * @param y may be x when types and strides are the same; else it must not overlap x
   * @param threads 0: as many as the backend has
   */
  default void round(
      Rounding rounding,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long rows,
      long columns,
      @Nullable MemorySegment xMultiplier,
      MemorySegment y,
      Encoding yType,
      long ldy,
      int threads) {
    LinearCheck.round(x, xType, ldx, rows, columns, xMultiplier, y, yType, ldy);
    for (long i = 0; i < rows; i++) {
      for (long j = 0; j < columns; j++) {
        float v = Numbers.get(xType, x, i * ldx + j);
        if (xMultiplier != null) {
          v = HalfFloat.round(xType, v * Numbers.get(Encoding.F32, xMultiplier, j));
        }
        Numbers.put(yType, y, i * ldy + j, rounding.round(xType, v));
      }
    }
  }
}
