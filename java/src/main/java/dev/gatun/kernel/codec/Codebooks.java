package dev.gatun.kernel.codec;

import dev.gatun.Encoding;
import java.util.EnumMap;
import java.util.Map;

/**
 * Every encoding of 1 to 8 bits as a table of its 2^bits values, and the way back. NF4 and FP4 are
 * bitsandbytes' tables and thresholds (csrc/kernels.cu), E2M1 is OCP's.
 */
public final class Codebooks {
  private static final float[] NF4 = {
    -1f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1f
  };
  private static final float[] NF4_THRESHOLDS = {
    -0.8480964004993439f, -0.6106329262256622f, -0.4599952697753906f, -0.33967943489551544f,
        -0.23460740596055984f,
    -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f, 0.1202552504837513f,
        0.2035212516784668f,
    0.2920137718319893f, 0.3893125355243683f, 0.5016634166240692f, 0.6427869200706482f,
        0.8614784181118011f
  };
  private static final float[] FP4_MAGNITUDES = {
    0f,
    0.0052083334885537624f,
    0.6666666865348816f,
    1f,
    0.3333333432674408f,
    0.5f,
    0.1666666716337204f,
    0.25f
  };
  private static final float[] FP4_THRESHOLDS = {
    0.00260417f, 0.0859375f, 0.20833333f, 0.29166667f, 0.4166667f, 0.583333f, 0.8333333f
  };

  /** FP4's codes by rising magnitude. */
  private static final int[] FP4_ORDER = {0, 1, 6, 7, 4, 5, 2, 3};

  private static final float[] E2M1_MAGNITUDES = {0f, 0.5f, 1f, 1.5f, 2f, 3f, 4f, 6f};

  private static final Map<Encoding, float[]> TABLES = new EnumMap<>(Encoding.class);

  static {
    for (Encoding encoding : Encoding.values()) {
      if (encoding.bits() >= 1 && encoding.bits() <= 8) {
        float[] table = new float[1 << encoding.bits()];
        for (int code = 0; code < table.length; code++) {
          table[code] = value(encoding, code);
        }
        TABLES.put(encoding, table);
      }
    }
  }

  private Codebooks() {}

  /** The 2^bits values of an encoding by unsigned code; a copy. */
  public static float[] table(Encoding encoding) {
    return shared(encoding).clone();
  }

  /** The value of an unsigned code. */
  public static float decode(Encoding encoding, int code) {
    return shared(encoding)[code];
  }

  static float[] shared(Encoding encoding) {
    float[] table = TABLES.get(encoding);
    if (table == null) {
      throw new IllegalArgumentException(encoding + " has no table");
    }
    return table;
  }

  /**
   * The unsigned code of a value: integers to nearest even and clamped (NaN is 0), floats by their
   * own cast, NF4 and FP4 by bitsandbytes' thresholds (NaN is the code that no threshold lifts, 0).
   */
  public static int encode(Encoding encoding, float value) {
    return switch (encoding) {
      case I8 -> integer(value, -128, 127) & 0xFF;
      case I4 -> integer(value, -8, 7) & 0xF;
      case I2 -> integer(value, -2, 1) & 0x3;
      case U1, U2, U3, U4, U5, U6, U7, U8 -> integer(value, 0, (1 << encoding.bits()) - 1);
      case NF4 -> above(value, NF4_THRESHOLDS);
      case FP4 -> FP4_ORDER[above(Math.abs(value), FP4_THRESHOLDS)] | (value < 0 ? 8 : 0);
      case F4_E2M1 -> e2m1(value);
      default -> Fp8.encode(encoding, value);
    };
  }

  /** How many thresholds lie strictly below. */
  private static int above(float value, float[] thresholds) {
    int count = 0;
    while (count < thresholds.length && value > thresholds[count]) {
      count++;
    }
    return count;
  }

  private static int integer(float value, int min, int max) {
    return (int) Math.clamp(Float.isNaN(value) ? 0 : Math.rint(value), min, max);
  }

  /**
   * To nearest, ties to the even code, saturating; NaN becomes the largest magnitude, as
   * comparisons leave it.
   */
  private static int e2m1(float value) {
    int sign = Float.floatToRawIntBits(value) >>> 28 & 8;
    float x = Math.abs(value);
    int code = 0;
    while (code < 7) {
      float middle = (E2M1_MAGNITUDES[code] + E2M1_MAGNITUDES[code + 1]) / 2;
      if (x < middle || (x == middle && (code & 1) == 0)) {
        break;
      }
      code++;
    }
    return sign | code;
  }

  private static float value(Encoding encoding, int code) {
    return switch (encoding) {
      case I8 -> (byte) code;
      case U1, U2, U3, U4, U5, U6, U7, U8 -> code;
      case I2 -> code < 2 ? code : code - 4;
      case I4 -> code < 8 ? code : code - 16;
      case NF4 -> NF4[code];
      case FP4 -> code < 8 ? FP4_MAGNITUDES[code] : -FP4_MAGNITUDES[code - 8];
      case F4_E2M1 -> code < 8 ? E2M1_MAGNITUDES[code] : -E2M1_MAGNITUDES[code - 8];
      default -> Fp8.decode(encoding, code);
    };
  }
}
