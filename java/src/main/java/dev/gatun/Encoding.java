package dev.gatun;

import java.util.Locale;
import java.util.Optional;

/**
 * How one number or one weight code is stored. The ids are those of {@code gatun.h}; a test holds
 * the two together.
 */
public enum Encoding {
  /** IEEE 754 binary32. */
  F32(1, 32),
  /** IEEE 754 binary16. */
  F16(2, 16),
  /** The upper half of binary32. */
  BF16(3, 16),
  /** 8-bit float e4m3fn: largest 448, no infinities, NaN is 0x7F and 0xFF. */
  F8_E4M3(16, 8),
  /** 8-bit float e5m2: largest 57344, with infinities. */
  F8_E5M2(17, 8),
  /** 8-bit float e4m3fnuz: bias 8, largest 240, no negative zero, NaN is 0x80. */
  F8_E4M3FNUZ(18, 8),
  /** 8-bit float e5m2fnuz: bias 16, largest 57344, no negative zero, NaN is 0x80. */
  F8_E5M2FNUZ(19, 8),
  /** A power of two, 2^(code-127); scales only. */
  F8_E8M0(20, 8),
  /** Two's complement byte. */
  I8(32, 8),
  /** Unsigned byte. */
  U8(33, 8),
  /** Unsigned codes of few bits, 0 .. 2^bits - 1; signed ones are these with a zero point. */
  U1(40, 1),
  /** 0..3. */
  U2(41, 2),
  /** 0..7. */
  U3(42, 3),
  /** 0..31. */
  U5(43, 5),
  /** 0..63. */
  U6(44, 6),
  /** 0..127. */
  U7(45, 7),
  /** Two's complement, -2..1. */
  I2(46, 2),
  /** Two's complement nibble, -8..7. */
  I4(48, 4),
  /** Unsigned nibble, 0..15. */
  U4(49, 4),
  /** QLoRA's 4-bit normal float: 16 quantiles of the normal distribution, -1..1. */
  NF4(50, 4),
  /** bitsandbytes' 4-bit float, scaled to -1..1; not E2M1. */
  FP4(51, 4),
  /** OCP's 4-bit float: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. */
  F4_E2M1(52, 4),
  /** GGUF's self-contained blocks, codes and scales together: 128 + ggml's type number. */
  Q4_0(130, 32, 18),
  Q4_1(131, 32, 20),
  Q5_0(134, 32, 22),
  Q5_1(135, 32, 24),
  Q8_0(136, 32, 34),
  Q8_1(137, 32, 36),
  Q2_K(138, 256, 84),
  Q3_K(139, 256, 110),
  Q4_K(140, 256, 144),
  Q5_K(141, 256, 176),
  Q6_K(142, 256, 210),
  Q8_K(143, 256, 292),
  IQ4_NL(148, 32, 18),
  IQ4_XS(151, 256, 136),
  TQ1_0(162, 256, 54),
  TQ2_0(163, 256, 66),
  MXFP4(167, 32, 17),
  NVFP4(168, 64, 36),
  Q1_0(169, 128, 18),
  Q2_0(170, 64, 18);

  private final int id;
  private final int bits;
  private final int blockElements;
  private final int blockBytes;

  Encoding(int id, int bits) {
    this.id = id;
    this.bits = bits;
    this.blockElements = 1;
    this.blockBytes = bits % 8 == 0 ? bits / 8 : 0;
  }

  Encoding(int id, int blockElements, int blockBytes) {
    this.id = id;
    this.bits = 0;
    this.blockElements = blockElements;
    this.blockBytes = blockBytes;
  }

  /** The number by which the native library knows this encoding. */
  public int id() {
    return id;
  }

  /** Bits of one code; 0 for self-contained blocks, whose codes do not stand alone. */
  public int bits() {
    return bits;
  }

  /** Whether codes and scales lie together in self-contained blocks, as in GGUF. */
  public boolean isBlock() {
    return blockElements > 1;
  }

  /** Weights of one self-contained block; 1 for all other encodings. */
  public int blockElements() {
    return blockElements;
  }

  /** Bytes of one self-contained block, or of one code; 0 for codes of less than a byte. */
  public int blockBytes() {
    return blockBytes;
  }

  /** Whether this is a plain number (F32, F16, BF16) rather than a quantized code. */
  public boolean isPlain() {
    return this == F32 || this == F16 || this == BF16;
  }

  /**
   * Unsigned integers of so many bits, 1 to 8.
   *
   * @throws IllegalArgumentException for another number
   */
  public static Encoding unsigned(int bits) {
    return named("U" + bits)
        .orElseThrow(() -> new IllegalArgumentException("no integers of " + bits + " bits"));
  }

  /** The encoding with this name, case ignored: {@code "nf4"}, {@code "f8_e4m3"}. */
  public static Optional<Encoding> named(String name) {
    String upper = name.toUpperCase(Locale.ROOT);
    for (Encoding encoding : values()) {
      if (encoding.name().equals(upper)) {
        return Optional.of(encoding);
      }
    }
    return Optional.empty();
  }
}
