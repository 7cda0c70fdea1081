package dev.gatun.kernel;

import dev.gatun.Encoding;

/**
 * How {@code quantize} gets from numbers to codes, as a format's own library does it; the Java face
 * of {@code gatun_quantize_rule}, with the same definition. Every operation is rounded to {@code
 * arithmetic}.
 *
 * @param arithmetic F32, F16 or BF16
 * @param reciprocal multiply by the rounded reciprocal of the scale instead of dividing by it
 * @param divisor scale = absmax / divisor
 * @param scaleFloor smallest scale; 0: none
 * @param codeMin clamp before encoding
 * @param codeMax clamp before encoding
 * @param keepScales use the scales in the matrix instead of computing them
 * @param zeroCode the code for every element of a block whose scale is 0; -1: encode the quotient,
 *     NaN included
 */
public record QuantizeRule(
    Encoding arithmetic,
    boolean reciprocal,
    float divisor,
    float scaleFloor,
    float codeMin,
    float codeMax,
    boolean keepScales,
    int zeroCode) {

  /** For GGUF's blocks, which have a rule of their own each: nothing of this one is looked at. */
  public static final QuantizeRule OF_THE_BLOCK =
      new QuantizeRule(
          Encoding.F32, false, 1f, 0f, Float.NEGATIVE_INFINITY, Float.POSITIVE_INFINITY, false, -1);
}
