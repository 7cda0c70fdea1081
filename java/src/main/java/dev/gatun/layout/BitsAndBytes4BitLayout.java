package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * bitsandbytes' 4-bit codes: a codebook of 16 values, one scale (the largest magnitude) per block
 * of the flattened tensor, high nibble first; the product in float, rounded once to the weight's
 * own type. Nested: the scales are 8-bit codes of a 256-value codebook with their own scales, plus
 * one offset.
 *
 * @param encoding NF4 or FP4
 * @param block elements that share a scale
 * @param nested whether the scales are quantized too
 */
public record BitsAndBytes4BitLayout(Encoding encoding, long block, boolean nested)
    implements Layout {
  private static final List<Float> NF4 =
      List.of(
          -1.0f,
          -0.6961928009986877f,
          -0.5250730514526367f,
          -0.39491748809814453f,
          -0.28444138169288635f,
          -0.18477343022823334f,
          -0.09105003625154495f,
          0.0f,
          0.07958029955625534f,
          0.16093020141124725f,
          0.24611230194568634f,
          0.33791524171829224f,
          0.44070982933044434f,
          0.5626170039176941f,
          0.7229568362236023f,
          1.0f);
  private static final List<Float> FP4 =
      List.of(
          0f,
          0.0052083334885537624f,
          0.6666666865348816f,
          1f,
          0.3333333432674408f,
          0.5f,
          0.1666666716337204f,
          0.25f,
          0f,
          -0.0052083334885537624f,
          -0.6666666865348816f,
          -1f,
          -0.3333333432674408f,
          -0.5f,
          -0.1666666716337204f,
          -0.25f);

  @Override
  public String name() {
    return "bitsandbytes." + encoding.name().toLowerCase(Locale.ROOT);
  }

  @Override
  public String describe() {
    return "4-bit "
        + encoding
        + ", one scale per "
        + block
        + " weights"
        + (nested ? ", scales quantized to 8 bits" : " (F32)");
  }

  /**
   * The 16 values by code, as the library stores them in {@code quant_map}: code 8 of FP4 is 0
   * there, and -0 decoded.
   */
  public List<Float> codebook() {
    return encoding == Encoding.NF4 ? NF4 : FP4;
  }

  /**
   * The weight as a matrix.
   *
   * @param codes ceil(N · K / 2) bytes
   * @param absmax one per block: floats, or U8 codes when nested
   * @param dtype the weight's own type
   */
  public Matrix matrix(
      long n,
      long k,
      MemorySegment codes,
      MemorySegment absmax,
      Optional<Matrix.Nested> nest,
      Encoding dtype) {
    Matrix.Values scales = new Matrix.Values(nested ? Encoding.U8 : Encoding.F32, absmax);
    return Matrix.builder(n, k, encoding, codes)
        .codeOrder(CodeOrder.HIGH_FIRST)
        .granularity(new Granularity.Flat(block))
        .scales(scales)
        .nested(nest)
        .result(dtype)
        .build();
  }
}
