package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * AutoAWQ: unsigned 4-bit integers, {@code (code - zero) · scale} in the scale's type. Laid for
 * GEMM, words along N and scales [K/group, N]; or for GEMV, words along K and scales [N, groups,
 * padded]. Source: awq/modules/linear/gemm.py and gemv.py.
 *
 * @param gemv laid for GEMV
 * @param group weights of a row that share a scale
 */
public record AwqLayout(boolean gemv, long group) implements Layout {
  @Override
  public String name() {
    return gemv ? "awq.gemv" : "awq.gemm";
  }

  @Override
  public Encoding encoding() {
    return Encoding.U4;
  }

  @Override
  public String describe() {
    return "4-bit integer, one scale and one zero point per "
        + group
        + " weights, laid for "
        + (gemv ? "GEMV" : "GEMM");
  }

  /**
   * The weight as a matrix.
   *
   * @param scaleColumns scales of a row as they are stored, for GEMV
   * @param zeros U8, laid as the scales
   */
  public Matrix matrix(
      long n,
      long k,
      MemorySegment codes,
      Matrix.Values scales,
      long scaleColumns,
      MemorySegment zeros) {
    return Matrix.builder(n, k, Encoding.U4, codes)
        .codeOrder(gemv ? CodeOrder.LOW_FIRST : CodeOrder.WORDS_N)
        .granularity(
            gemv
                ? new Granularity.Tile(1, group, scaleColumns, 1)
                : new Granularity.Tile(1, group, 1, n))
        .scales(scales)
        .zeros(Optional.of(new Matrix.Values(Encoding.U8, zeros)))
        .arithmetic(scales.type())
        .result(scales.type())
        .build();
  }
}
