package dev.gatun.kernel.codec;

import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Objects;

/**
 * Numbers to GGUF's blocks. Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4 and NVFP4 give ggml's bytes
 * (the reference quantizers in ggml-quants.c, without an importance matrix); Q4_K and Q6_K are
 * searched for the least squared error.
 */
public final class GgufQuantizer {
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final double LN_2 = Math.log(2);

  private GgufQuantizer() {}

  /** Whether numbers can be quantized to blocks of this encoding. */
  public static boolean writes(Encoding encoding) {
    return switch (encoding) {
      case Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, IQ4_NL, MXFP4, NVFP4, Q4_K, Q6_K -> true;
      default -> false;
    };
  }

  /**
   * Quantizes one block.
   *
   * @param x {@link Encoding#blockElements()} numbers
   * @param out takes {@link Encoding#blockBytes()} bytes from {@code at} on
   */
  public static void encode(Encoding encoding, float[] x, MemorySegment out, long at) {
    switch (encoding) {
      case Q4_0 -> write(encoding, signed(x, 8, out, at), out, at);
      case Q5_0 -> write(encoding, signed(x, 16, out, at), out, at);
      case Q4_1 -> write(encoding, ranged(x, 15, out, at), out, at);
      case Q5_1 -> write(encoding, ranged(x, 31, out, at), out, at);
      case Q8_0 -> write(encoding, q8(x, out, at), out, at);
      case IQ4_NL -> write(encoding, Iq4Search.codes(x, out, at), out, at);
      case MXFP4 -> write(encoding, mxfp4(x, out, at), out, at);
      case NVFP4 -> write(encoding, nvfp4(x, out, at), out, at);
      case Q4_K -> new Q4KSearch(x).write(out, at);
      case Q6_K -> new Q6KSearch(x).write(out, at);
      default -> throw new IllegalArgumentException(encoding + " is not written");
    }
  }

  private static void write(Encoding encoding, int[] codes, MemorySegment out, long at) {
    GgufCodes layout = Objects.requireNonNull(GgufCodes.of(encoding));
    for (int j = 0; j < codes.length; j++) {
      layout.putCode(out, at, j, codes[j]);
    }
  }

  /** Q4_0 ({@code half} 8) and Q5_0 (16): the number of largest magnitude gets the code -half. */
  private static int[] signed(float[] x, int half, MemorySegment out, long at) {
    float largest = 0;
    float signed = 0;
    for (float v : x) {
      if (largest < Math.abs(v)) {
        largest = Math.abs(v);
        signed = v;
      }
    }
    float d = signed / -half;
    float reciprocal = d != 0 ? 1f / d : 0f;
    putF16(out, at, d);
    int[] codes = new int[32];
    for (int j = 0; j < 32; j++) {
      codes[j] = Math.min(2 * half - 1, (byte) truncate(x[j] * reciprocal + (half + 0.5f)));
    }
    return codes;
  }

  /** Q4_1 ({@code steps} 15) and Q5_1 (31): from the smallest to the largest number. */
  private static int[] ranged(float[] x, int steps, MemorySegment out, long at) {
    float min = Float.MAX_VALUE;
    float max = -Float.MAX_VALUE;
    for (float v : x) {
      min = v < min ? v : min;
      max = v > max ? v : max;
    }
    float d = (max - min) / steps;
    float reciprocal = d != 0 ? 1f / d : 0f;
    putF16(out, at, d);
    putF16(out, at + 2, min);
    int[] codes = new int[32];
    for (int j = 0; j < 32; j++) {
      int code = truncate((x[j] - min) * reciprocal + 0.5f);
      codes[j] = steps == 15 ? Math.min(15, (byte) code) : code & 0xFF;
    }
    return codes;
  }

  private static int[] q8(float[] x, MemorySegment out, long at) {
    float largest = 0;
    for (float v : x) {
      largest = largest > Math.abs(v) ? largest : Math.abs(v);
    }
    float d = largest / 127;
    float reciprocal = d != 0 ? 1f / d : 0f;
    putF16(out, at, d);
    int[] codes = new int[32];
    for (int j = 0; j < 32; j++) {
      float v = x[j] * reciprocal;
      // to nearest, halves away from zero; exact in double
      float rounded = (float) Math.copySign(Math.floor(Math.abs((double) v) + 0.5), v);
      codes[j] = truncate(rounded);
    }
    return codes;
  }

  private static int[] mxfp4(float[] x, MemorySegment out, long at) {
    float largest = largest(x, 0, 32);
    int e = 0;
    if (largest > 0) {
      // The logarithm is one of floats: just below a power of two it may round up to it.
      float log = (float) (Math.log(largest) / LN_2);
      e = truncate((float) Math.floor(log) - 2 + 127) & 0xFF;
    }
    out.set(ValueLayout.JAVA_BYTE, at, (byte) e);
    float d = GgufBlocks.halfOfE8m0(e);
    int[] codes = new int[32];
    for (int j = 0; j < 32; j++) {
      codes[j] = nearestE2m1(x[j], d);
    }
    return codes;
  }

  private static int[] nvfp4(float[] x, MemorySegment out, long at) {
    int[] codes = new int[64];
    for (int s = 0; s < 4; s++) {
      int scale = ue4m3(largest(x, 16 * s, 16) / 6f);
      out.set(ValueLayout.JAVA_BYTE, at + s, (byte) scale);
      float d = GgufBlocks.halfOfUe4m3(scale);
      for (int j = 16 * s; j < 16 * s + 16; j++) {
        codes[j] = nearestE2m1(x[j], d);
      }
    }
    return codes;
  }

  private static float largest(float[] x, int from, int count) {
    float largest = 0;
    for (int j = from; j < from + count; j++) {
      largest = largest < Math.abs(x[j]) ? Math.abs(x[j]) : largest;
    }
    return largest;
  }

  /** The first of the values that is nearest: ties go to the smaller code, toward zero. */
  private static int nearestE2m1(float x, float d) {
    int best = 0;
    float least = Math.abs(GgufBlocks.E2M1_DOUBLED[0] * d - x);
    for (int i = 1; i < 16; i++) {
      float error = Math.abs(GgufBlocks.E2M1_DOUBLED[i] * d - x);
      if (error < least) {
        best = i;
        least = error;
      }
    }
    return best;
  }

  /** Unsigned E4M3, halves up; from 256 on 0x7E. */
  private static int ue4m3(float value) {
    if (!(value > 0)) {
      return 0;
    }
    float x = Math.min(value, 448f);
    int bits = Float.floatToRawIntBits(x);
    int exponent = (bits >>> 23) - 127 + 7;
    if (exponent <= 0) {
      return Math.min(7, (int) (x * 512f + 0.5f));
    }
    if (exponent >= 15) {
      return 0x7E;
    }
    // A carry out of the mantissa moves on into the exponent by itself.
    int code = (exponent << 3 | bits >>> 20 & 7) + (bits >>> 19 & 1);
    return code >= 15 << 3 ? 0x7E : code;
  }

  /** As C converts on x86: what does not fit in an int is its smallest. */
  private static int truncate(float v) {
    return Math.abs(v) < 0x1p31f ? (int) v : Integer.MIN_VALUE;
  }

  static void putF16(MemorySegment out, long at, float v) {
    out.set(SHORT, at, HalfFloat.toF16(v));
  }
}
