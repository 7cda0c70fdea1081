package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * GPTQ: unsigned integers packed along K in 32-bit words, {@code (code - zero) · scale} in the
 * scale's type, scales and zero points laid [K/group, N]. The columns may belong to groups out of
 * order. Source: auto_gptq/nn_modules/qlinear.
 *
 * @param bits 2, 3, 4 or 8
 * @param group weights of a row that share a scale
 */
public record GptqLayout(int bits, long group) implements Layout {
  @Override
  public String name() {
    return "gptq." + bits + "bit";
  }

  @Override
  public Encoding encoding() {
    return Encoding.unsigned(bits);
  }

  @Override
  public String describe() {
    return bits + "-bit integer, one scale and one zero point per " + group + " weights";
  }

  /**
   * The weight as a matrix.
   *
   * @param zeros U8, laid as the scales
   * @param columnGroups the group of each k, when they are not in order
   */
  public Matrix matrix(
      long n,
      long k,
      MemorySegment codes,
      Matrix.Values scales,
      MemorySegment zeros,
      Optional<MemorySegment> columnGroups) {
    return Matrix.builder(n, k, encoding(), codes)
        .codeOrder(CodeOrder.WORDS_K)
        .granularity(new Granularity.Tile(1, group, 1, n))
        .scales(scales)
        .zeros(Optional.of(new Matrix.Values(Encoding.U8, zeros)))
        .columnGroups(columnGroups)
        .arithmetic(scales.type())
        .result(scales.type())
        .build();
  }
}
