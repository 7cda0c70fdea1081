package dev.gatun.kernel.codec;

import dev.gatun.Encoding;

/**
 * The 8-bit floats. Encoding rounds to nearest even, subnormals included, and overflows as
 * PyTorch's cast does: e4m3fn to NaN with the sign, e5m2 to infinity, the fnuz types to their one
 * NaN.
 */
public final class Fp8 {
  private Fp8() {}

  /** Whether this is one of the 8-bit floats, E8M0 included. */
  public static boolean is(Encoding encoding) {
    return switch (encoding) {
      case F8_E4M3, F8_E5M2, F8_E4M3FNUZ, F8_E5M2FNUZ, F8_E8M0 -> true;
      default -> false;
    };
  }

  /** Largest finite value: 448, 57344, 240, 57344 or 2^127. */
  public static float max(Encoding encoding) {
    return switch (encoding) {
      case F8_E4M3 -> 448f;
      case F8_E5M2, F8_E5M2FNUZ -> 57344f;
      case F8_E4M3FNUZ -> 240f;
      case F8_E8M0 -> 0x1p127f;
      default -> throw notFp8(encoding);
    };
  }

  /** The value of a code, 0..255. */
  public static float decode(Encoding encoding, int code) {
    if (encoding == Encoding.F8_E8M0) {
      return code == 255 ? Float.NaN : Math.scalb(1f, code - 127);
    }
    int mantissa = mantissaBits(encoding);
    int magnitude = code & 0x7F;
    boolean negative = (code & 0x80) != 0;
    switch (encoding) {
      case F8_E4M3 -> {
        if (magnitude == 0x7F) {
          return Float.NaN;
        }
      }
      case F8_E5M2 -> {
        if (magnitude > 0x7C) {
          return Float.NaN;
        }
        if (magnitude == 0x7C) {
          return negative ? Float.NEGATIVE_INFINITY : Float.POSITIVE_INFINITY;
        }
      }
      default -> {
        if (code == 0x80) {
          return Float.NaN;
        }
      }
    }
    int exponent = magnitude >>> mantissa;
    int fraction = magnitude & (1 << mantissa) - 1;
    // A normal number has a one before its fraction; a subnormal has the exponent of the smallest
    // normal.
    int significand = exponent == 0 ? fraction : fraction | 1 << mantissa;
    float value =
        Math.scalb((float) significand, Math.max(1, exponent) - bias(encoding) - mantissa);
    return negative ? -value : value;
  }

  /** The code of a value, 0..255. */
  public static int encode(Encoding encoding, float value) {
    if (encoding == Encoding.F8_E8M0) {
      return encodeE8m0(value);
    }
    boolean fnuz = encoding == Encoding.F8_E4M3FNUZ || encoding == Encoding.F8_E5M2FNUZ;
    int sign = Float.floatToRawIntBits(value) >>> 24 & 0x80;
    if (Float.isNaN(value)) {
      return fnuz ? 0x80 : sign | 0x7F;
    }
    int largest = encoding == Encoding.F8_E4M3 ? 0x7E : encoding == Encoding.F8_E5M2 ? 0x7B : 0x7F;
    int magnitude = largest + 1;
    if (!Float.isInfinite(value)) {
      int mantissa = mantissaBits(encoding);
      int exponent = Math.max(Math.getExponent(value), 1 - bias(encoding));
      // In units of the last place the number is an integer after rounding; a carry moves on into
      // the exponent by itself.
      int units = (int) Math.rint(Math.scalb((double) Math.abs(value), mantissa - exponent));
      magnitude = Math.min(largest + 1, (exponent + bias(encoding) - 1 << mantissa) + units);
    }
    if (magnitude > largest) {
      return fnuz ? 0x80 : sign | magnitude;
    }
    return fnuz && magnitude == 0 ? 0 : sign | magnitude;
  }

  /** The code of a value clamped to the largest finite one, infinities too; NaN stays NaN. */
  public static int encodeSaturated(Encoding encoding, float value) {
    float max = max(encoding);
    return encode(encoding, Float.isNaN(value) ? value : Math.clamp(value, -max, max));
  }

  /**
   * Powers of two: the exponent rounded to nearest, as PyTorch's cast does; the sign is ignored.
   */
  private static int encodeE8m0(float value) {
    int bits = Float.floatToRawIntBits(value);
    int exponent = bits >>> 23 & 0xFF;
    if (exponent == 0xFF) {
      return 0xFF;
    }
    boolean half = (bits & 0x400000) != 0;
    boolean more = (bits & 0x3FFFFF) != 0;
    return half && (more || exponent > 0) ? exponent + 1 : exponent;
  }

  private static int mantissaBits(Encoding encoding) {
    return switch (encoding) {
      case F8_E4M3, F8_E4M3FNUZ -> 3;
      case F8_E5M2, F8_E5M2FNUZ -> 2;
      default -> throw notFp8(encoding);
    };
  }

  private static int bias(Encoding encoding) {
    return switch (encoding) {
      case F8_E4M3 -> 7;
      case F8_E4M3FNUZ -> 8;
      case F8_E5M2 -> 15;
      case F8_E5M2FNUZ -> 16;
      default -> throw notFp8(encoding);
    };
  }

  private static IllegalArgumentException notFp8(Encoding encoding) {
    return new IllegalArgumentException(encoding + " is not an 8-bit float");
  }
}
