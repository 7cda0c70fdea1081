package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * MLX: each row one stream of bits. {@code affine}: unsigned integers, {@code scale · code + bias}
 * in the scale's type; the others are block-scaled floats. Source: mlx/ops.cpp, quantize.
 *
 * @param mode affine, mxfp4, mxfp8 or nvfp4
 * @param bits of one code
 * @param group weights of a row that share a scale
 */
public record MlxLayout(String mode, int bits, long group) implements Layout {
  @Override
  public String name() {
    return "mlx." + mode + (mode.equals("affine") ? "." + bits + "bit" : "");
  }

  @Override
  public Encoding encoding() {
    return switch (mode) {
      case "mxfp4", "nvfp4" -> Encoding.F4_E2M1;
      case "mxfp8" -> Encoding.F8_E4M3;
      default -> Encoding.unsigned(bits);
    };
  }

  @Override
  public String describe() {
    return mode.equals("affine")
        ? bits + "-bit integer, one scale and one bias per " + group + " weights"
        : encoding() + ", one 8-bit float scale per " + group + " weights";
  }

  /** What the scales of a block-scaled float are. */
  public Encoding scaleType() {
    return mode.equals("nvfp4") ? Encoding.F8_E4M3 : Encoding.F8_E8M0;
  }

  /**
   * The weight as a matrix.
   *
   * @param biases of the affine mode
   * @param scale of the whole tensor; 1 when there is none
   */
  public Matrix matrix(
      long n,
      long k,
      MemorySegment codes,
      Matrix.Values scales,
      Optional<Matrix.Values> biases,
      float scale,
      Encoding dtype) {
    Matrix.Builder b =
        Matrix.builder(n, k, encoding(), codes)
            .codeOrder(8 % bits == 0 ? CodeOrder.LOW_FIRST : CodeOrder.BITS)
            .granularity(Granularity.perGroup(k, group))
            .scales(scales)
            .globalScale(scale)
            .arithmetic(biases.isPresent() ? dtype : Encoding.F32)
            .result(dtype);
    biases.ifPresent(b::offsets);
    return b.build();
  }
}
