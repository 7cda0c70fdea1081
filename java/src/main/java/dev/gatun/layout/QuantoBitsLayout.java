package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * optimum-quanto's 2- and 4-bit weights: {@code scale · code - shift} in the scale's type, or
 * {@code (code - zero) · scale} when the shift is an integer; the rows of groups split in runs that
 * share bytes. Source: optimum/quanto/tensor/weights/qbits.py, tensor/packed.py, tensor/grouped.py.
 *
 * @param bits 2 or 4
 * @param group weights of a row that share a scale; 0: the whole row does
 */
public record QuantoBitsLayout(int bits, long group) implements Layout {
  private static final long LARGEST_GROUP = 128;
  private static final long SMALLEST_GROUP = 32;
  private static final long GROUP_STEP = 32;

  /** The library's choice for K weights in a row: it is not stored. 0: no groups. */
  public static long groupOf(long k) {
    if (k <= LARGEST_GROUP) {
      return 0;
    }
    long group = LARGEST_GROUP;
    while (k % group != 0 && group > SMALLEST_GROUP) {
      group -= GROUP_STEP;
    }
    return k % group == 0 ? group : 0;
  }

  @Override
  public String name() {
    return "quanto." + qtype();
  }

  /** quanto's name of the type. */
  public String qtype() {
    return "qint" + bits;
  }

  @Override
  public Encoding encoding() {
    return bits == 2 ? Encoding.U2 : Encoding.U4;
  }

  @Override
  public String describe() {
    return bits
        + "-bit integer, one scale and one shift per "
        + (group == 0 ? "row" : group + " weights");
  }

  /**
   * The weight as a matrix; the type of the scales is what the library computes in and dequantizes
   * to.
   *
   * @param shift floats that are subtracted, or I8 zero points
   */
  public Matrix matrix(
      long n, long k, MemorySegment codes, Matrix.Values scales, Matrix.Values shift) {
    long columns = group == 0 ? Math.max(1, k) : group;
    Matrix.Builder b =
        Matrix.builder(n, k, encoding(), codes)
            .codeOrder(CodeOrder.SPLIT_ROWS)
            .granularity(Granularity.perGroup(k, columns))
            .scales(scales)
            .arithmetic(scales.type())
            .result(scales.type());
    return shift.type() == Encoding.I8
        ? b.zeros(Optional.of(shift)).build()
        : b.subtracted(shift).build();
  }
}
