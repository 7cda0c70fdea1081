package dev.gatun;

import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.HalfFloat;
import java.util.Objects;

/**
 * How a calibrated layer rounds numbers ("static" activations): with one scale for all of them that
 * was found beforehand.
 *
 * <pre>value = code · scale, code = encode(clamp(v / scale))</pre>
 *
 * Codes are clamped to -128..127 or to the largest finite 8-bit float, so that infinity becomes
 * that; NaN stays NaN. Every operation is rounded to the type that the numbers have, as the
 * libraries do it.
 *
 * @param encoding I8 or an 8-bit float
 * @param scale positive and finite
 * @param reciprocal whether v is multiplied by the rounded 1 / scale (ComfyUI) instead of divided
 *     (quanto)
 */
public record Rounding(Encoding encoding, float scale, boolean reciprocal) {
  /** Refuses other encodings and scales. */
  public Rounding {
    Objects.requireNonNull(encoding, "encoding");
    if (encoding != Encoding.I8 && (!Fp8.is(encoding) || encoding == Encoding.F8_E8M0)) {
      throw new GatunException("rounding: found " + encoding + ", expected I8 or an 8-bit float");
    }
    if (!(scale > 0) || Float.isInfinite(scale)) {
      throw new GatunException(
          "rounding: found a scale of " + scale + ", expected a positive number");
    }
  }

  /** The largest code as a number: 127, 448 … Calibration divides an absmax by it. */
  public static float largest(Encoding encoding) {
    return encoding == Encoding.I8 ? 127f : Fp8.max(encoding);
  }

  /** The smallest code as a number: -128, -448 … */
  public static float smallest(Encoding encoding) {
    return encoding == Encoding.I8 ? -128f : -Fp8.max(encoding);
  }

  /** What a number is multiplied by, or divided by, before it is encoded. */
  public float factor(Encoding type) {
    return reciprocal ? HalfFloat.round(type, 1f / scale) : scale;
  }

  /**
   * A number rounded.
   *
   * @param type F32, F16 or BF16: what the number is of
   */
  public float round(Encoding type, float v) {
    float factor = factor(type);
    float q = HalfFloat.round(type, reciprocal ? v * factor : v / factor);
    if (Float.isNaN(q)) {
      return q;
    }
    float code = Math.clamp(q, smallest(encoding), largest(encoding));
    return Codebooks.decode(encoding, Codebooks.encode(encoding, code)) * scale;
  }
}
