package dev.gatun.kernel.codec;

import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.EnumMap;
import java.util.Map;

/**
 * GGUF's blocks decoded, bit for bit as ggml does it (ggml-quants.c): every product and sum is
 * rounded to float, in the order in which it is written here. {@code d}, {@code m} and {@code dmin}
 * are binary16 numbers of the block.
 */
public final class GgufBlocks {
  /** IQ4_NL's and IQ4_XS's values. */
  private static final int[] IQ4 = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
  };

  /** E2M1's values, doubled: MXFP4's and NVFP4's scales are halved. */
  static final int[] E2M1_DOUBLED = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

  private static final int[] POWERS_OF_3 = {1, 3, 9, 27, 81};

  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  @FunctionalInterface
  private interface Decoder {
    /** Decodes a block into {@code y[o ..]}. */
    void decode(Block b, float[] y, int o);
  }

  /** A block's bytes. */
  private record Block(MemorySegment data, long at) {
    int u8(int i) {
      return data.get(ValueLayout.JAVA_BYTE, at + i) & 0xFF;
    }

    int i8(int i) {
      return data.get(ValueLayout.JAVA_BYTE, at + i);
    }

    float f16(int i) {
      return HalfFloat.fromF16(data.get(SHORT, at + i));
    }

    int u32(int i) {
      return data.get(INT, at + i);
    }
  }

  private static final Map<Encoding, Decoder> DECODERS = new EnumMap<>(Encoding.class);

  static {
    DECODERS.put(Encoding.Q4_0, (b, y, o) -> halves(b, 2, 32, q -> q - 8, b.f16(0), y, o));
    DECODERS.put(Encoding.Q4_1, (b, y, o) -> q4With5thBit(b, 4, 0, 0, b.f16(0), b.f16(2), y, o));
    DECODERS.put(Encoding.Q5_0, GgufBlocks::q5Signed);
    DECODERS.put(
        Encoding.Q5_1, (b, y, o) -> q4With5thBit(b, 8, b.u32(4), 16, b.f16(0), b.f16(2), y, o));
    DECODERS.put(Encoding.Q8_0, (b, y, o) -> bytes(b, 2, 32, b.f16(0), y, o));
    DECODERS.put(Encoding.Q8_1, (b, y, o) -> bytes(b, 4, 32, b.f16(0), y, o));
    DECODERS.put(Encoding.Q8_K, (b, y, o) -> bytes(b, 4, 256, b.data.get(FLOAT, b.at), y, o));
    DECODERS.put(Encoding.Q1_0, GgufBlocks::q1);
    DECODERS.put(Encoding.Q2_0, GgufBlocks::q2);
    DECODERS.put(Encoding.Q2_K, GgufBlocks::q2K);
    DECODERS.put(Encoding.Q3_K, GgufBlocks::q3K);
    DECODERS.put(Encoding.Q4_K, (b, y, o) -> q4K(b, 16, false, y, o));
    DECODERS.put(Encoding.Q5_K, (b, y, o) -> q4K(b, 48, true, y, o));
    DECODERS.put(Encoding.Q6_K, GgufBlocks::q6K);
    DECODERS.put(Encoding.IQ4_NL, (b, y, o) -> halves(b, 2, 32, q -> IQ4[q], b.f16(0), y, o));
    DECODERS.put(Encoding.IQ4_XS, GgufBlocks::iq4Xs);
    DECODERS.put(Encoding.TQ1_0, GgufBlocks::tq1);
    DECODERS.put(Encoding.TQ2_0, GgufBlocks::tq2);
    DECODERS.put(
        Encoding.MXFP4,
        (b, y, o) -> halves(b, 1, 32, q -> E2M1_DOUBLED[q], halfOfE8m0(b.u8(0)), y, o));
    DECODERS.put(Encoding.NVFP4, GgufBlocks::nvfp4);
  }

  private GgufBlocks() {}

  /** Whether blocks of this encoding can be decoded. */
  public static boolean decodes(Encoding encoding) {
    return DECODERS.containsKey(encoding);
  }

  /**
   * Decodes one block.
   *
   * @param data where the block lies
   * @param at its first byte; {@link Encoding#blockBytes()} of them are read
   * @param out takes {@link Encoding#blockElements()} numbers
   */
  public static void decode(Encoding encoding, MemorySegment data, long at, float[] out) {
    Decoder decoder = DECODERS.get(encoding);
    if (decoder == null) {
      throw new IllegalArgumentException(encoding + " has no blocks");
    }
    decoder.decode(new Block(data, at), out, 0);
  }

  /** 2^(code - 128): half of what E8M0 means, for the doubled values. 255 is no NaN here. */
  static float halfOfE8m0(int code) {
    return Float.intBitsToFloat(code < 2 ? 0x00200000 << code : code - 1 << 23);
  }

  /** Half of an unsigned E4M3 scale; its NaN is 0. */
  static float halfOfUe4m3(int code) {
    if (code == 0 || code == 0x7F) {
      return 0f;
    }
    int exponent = code >> 3 & 0xF;
    int mantissa = code & 7;
    return exponent == 0
        ? Math.scalb((float) mantissa, -10)
        : Math.scalb(1f + mantissa / 8f, exponent - 8);
  }

  /** What an unsigned E4M3 scale means. */
  static float ue4m3(byte code) {
    return 2 * halfOfUe4m3(code & 0xFF);
  }

  /** The 16 numbers that IQ4_NL's codes stand for. */
  static float[] iq4() {
    float[] values = new float[IQ4.length];
    for (int i = 0; i < values.length; i++) {
      values[i] = IQ4[i];
    }
    return values;
  }

  @FunctionalInterface
  private interface Value {
    int of(int code);
  }

  /** {@code count} 4-bit codes: the first half in the low nibbles, the second in the high ones. */
  private static void halves(Block b, int at, int count, Value value, float d, float[] y, int o) {
    int half = count / 2;
    for (int j = 0; j < half; j++) {
      int q = b.u8(at + j);
      y[o + j] = value.of(q & 15) * d;
      y[o + j + half] = value.of(q >> 4) * d;
    }
  }

  /** q·d + m, where {@code high}'s bit j is the fifth bit ({@code weight} 16) of element j. */
  private static void q4With5thBit(
      Block b, int at, int high, int weight, float d, float m, float[] y, int o) {
    for (int j = 0; j < 16; j++) {
      int q = b.u8(at + j);
      y[o + j] = ((q & 15) + (high >>> j & 1) * weight) * d + m;
      y[o + j + 16] = ((q >> 4) + (high >>> j + 16 & 1) * weight) * d + m;
    }
  }

  private static void q5Signed(Block b, float[] y, int o) {
    float d = b.f16(0);
    int high = b.u32(2);
    for (int j = 0; j < 16; j++) {
      int q = b.u8(6 + j);
      y[o + j] = (((q & 15) | (high >>> j & 1) << 4) - 16) * d;
      y[o + j + 16] = ((q >> 4 | (high >>> j + 16 & 1) << 4) - 16) * d;
    }
  }

  private static void bytes(Block b, int at, int count, float d, float[] y, int o) {
    for (int j = 0; j < count; j++) {
      y[o + j] = b.i8(at + j) * d;
    }
  }

  private static void q1(Block b, float[] y, int o) {
    float d = b.f16(0);
    for (int j = 0; j < 128; j++) {
      y[o + j] = (b.u8(2 + j / 8) >> j % 8 & 1) != 0 ? d : -d;
    }
  }

  private static void q2(Block b, float[] y, int o) {
    float d = b.f16(0);
    for (int j = 0; j < 64; j++) {
      y[o + j] = ((b.u8(2 + j / 4) >> 2 * (j % 4) & 3) - 1) * d;
    }
  }

  /** Element 128·h + 32·j + l has bits 2j of byte 32·h + l, and the scale of its 16. */
  private static void q2K(Block b, float[] y, int o) {
    float d = b.f16(80);
    float dmin = b.f16(82);
    for (int i = 0; i < 256; i++) {
      int scale = b.u8(i / 16);
      int q = b.u8(16 + i / 128 * 32 + i % 32) >> 2 * (i / 32 % 4) & 3;
      y[o + i] = d * (scale & 15) * q - dmin * (scale >> 4);
    }
  }

  /** As Q2_K with a third bit, inverted, in the first 32 bytes, and 16 scales of 6 bits. */
  private static void q3K(Block b, float[] y, int o) {
    float d = b.f16(108);
    for (int i = 0; i < 256; i++) {
      int s = i / 16;
      int low = s < 8 ? b.u8(96 + s) & 15 : b.u8(96 + s - 8) >> 4;
      int scale = (low | (b.u8(104 + s % 4) >> 2 * (s / 4) & 3) << 4) - 32;
      int q = b.u8(32 + i / 128 * 32 + i % 32) >> 2 * (i / 32 % 4) & 3;
      int high = b.u8(i % 32) >> i / 32 & 1;
      y[o + i] = d * scale * (q - (high != 0 ? 0 : 4));
    }
  }

  /** Q4_K and Q5_K: 8 sub-blocks of 32 with 6-bit scales and minima; Q5_K's fifth bits at 16. */
  private static void q4K(Block b, int codes, boolean fifth, float[] y, int o) {
    float d = b.f16(0);
    float dmin = b.f16(2);
    for (int s = 0; s < 8; s++) {
      float scale = d * scale6(b, s);
      float minimum = dmin * minimum6(b, s);
      for (int l = 0; l < 32; l++) {
        int q = b.u8(codes + s / 2 * 32 + l) >> 4 * (s % 2) & 15;
        int high = fifth ? b.u8(16 + l) >> s & 1 : 0;
        y[o + 32 * s + l] = scale * (q + 16 * high) - minimum;
      }
    }
  }

  private static int scale6(Block b, int s) {
    return s < 4 ? b.u8(4 + s) & 63 : b.u8(8 + s) & 15 | b.u8(s) >> 6 << 4;
  }

  private static int minimum6(Block b, int s) {
    return s < 4 ? b.u8(8 + s) & 63 : b.u8(8 + s) >> 4 | b.u8(4 + s) >> 6 << 4;
  }

  /** Two halves of 128: low nibbles of 64 bytes, two more bits in 32 bytes, a scale for each 16. */
  private static void q6K(Block b, float[] y, int o) {
    float d = b.f16(208);
    for (int i = 0; i < 256; i++) {
      int half = i / 128;
      int quarter = i / 32 % 4;
      int l = i % 32;
      int low = b.u8(64 * half + 32 * (quarter % 2) + l) >> 4 * (quarter / 2) & 15;
      int high = b.u8(128 + 32 * half + l) >> 2 * quarter & 3;
      y[o + i] = d * b.i8(192 + i / 16) * ((low | high << 4) - 32);
    }
  }

  private static void iq4Xs(Block b, float[] y, int o) {
    float d = b.f16(0);
    int high = b.u8(2) | b.u8(3) << 8;
    for (int s = 0; s < 8; s++) {
      int scale = (b.u8(4 + s / 2) >> 4 * (s % 2) & 15) | (high >> 2 * s & 3) << 4;
      halves(b, 8 + 16 * s, 32, q -> IQ4[q], d * (scale - 32), y, o + 32 * s);
    }
  }

  /** Base 3, five digits a byte, stored as a fraction of 256 so that products shift digits out. */
  private static void tq1(Block b, float[] y, int o) {
    float d = b.f16(52);
    for (int i = 0; i < 256; i++) {
      int at;
      int digit;
      if (i < 160) {
        at = i % 32;
        digit = i / 32;
      } else if (i < 240) {
        at = 32 + (i - 160) % 16;
        digit = (i - 160) / 16;
      } else {
        at = 48 + (i - 240) % 4;
        digit = (i - 240) / 4;
      }
      int shifted = b.u8(at) * POWERS_OF_3[digit] & 0xFF;
      y[o + i] = ((shifted * 3 >> 8) - 1) * d;
    }
  }

  private static void tq2(Block b, float[] y, int o) {
    float d = b.f16(64);
    for (int i = 0; i < 256; i++) {
      int q = b.u8(i / 128 * 32 + i % 32) >> 2 * (i / 32 % 4) & 3;
      y[o + i] = (q - 1) * d;
    }
  }

  private static void nvfp4(Block b, float[] y, int o) {
    for (int s = 0; s < 4; s++) {
      float d = halfOfUe4m3(b.u8(s));
      halves(b, 4 + 8 * s, 16, q -> E2M1_DOUBLED[q], d, y, o + 16 * s);
    }
  }
}
