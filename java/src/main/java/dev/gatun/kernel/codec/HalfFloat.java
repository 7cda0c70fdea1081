package dev.gatun.kernel.codec;

import dev.gatun.Encoding;

/**
 * The 16-bit floats: IEEE 754 binary16 and bfloat16. Rounds to nearest even, as PyTorch's casts do.
 */
public final class HalfFloat {
  private HalfFloat() {}

  /**
   * binary16 bits of a float; from 65520 on infinite, subnormals kept, NaN is {@code 0x7E00} with
   * the sign.
   */
  public static short toF16(float value) {
    if (Float.isNaN(value)) {
      return (short) (0x7E00 | Float.floatToRawIntBits(value) >>> 16 & 0x8000);
    }
    return Float.floatToFloat16(value);
  }

  /** The float of binary16 bits, exact. */
  public static float fromF16(short bits) {
    return Float.float16ToFloat(bits);
  }

  /** bfloat16 bits of a float; every NaN is {@code 0x7FC0}. */
  public static short toBf16(float value) {
    if (Float.isNaN(value)) {
      return 0x7FC0;
    }
    int bits = Float.floatToRawIntBits(value);
    return (short) (bits + 0x7FFF + (bits >>> 16 & 1) >>> 16);
  }

  /** The float of bfloat16 bits, exact. */
  public static float fromBf16(short bits) {
    return Float.intBitsToFloat(bits << 16);
  }

  /**
   * A float rounded to a plain type and back.
   *
   * @param type F32, F16 or BF16
   */
  public static float round(Encoding type, float value) {
    return switch (type) {
      case F32 -> value;
      case F16 -> fromF16(toF16(value));
      case BF16 -> fromBf16(toBf16(value));
      default -> throw new IllegalArgumentException(type + " is not F32, F16 or BF16");
    };
  }

  /**
   * A float that rounds on to any 16-bit type as the double itself would: what lies between two
   * floats becomes the one with the odd last bit, so that no tie is made.
   */
  public static float toOdd(double value) {
    float near = (float) value;
    if (near == value || Double.isNaN(value)) {
      return near;
    }
    int bits = Float.floatToRawIntBits(near);
    if (Math.abs((double) near) > Math.abs(value)) {
      bits--;
    }
    return Float.intBitsToFloat(bits | 1);
  }
}
