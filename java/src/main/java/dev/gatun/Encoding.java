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
  /** Two's complement nibble, -8..7. */
  I4(48, 4),
  /** Unsigned nibble, 0..15. */
  U4(49, 4),
  /** QLoRA's 4-bit normal float: 16 quantiles of the normal distribution, -1..1. */
  NF4(50, 4),
  /** bitsandbytes' 4-bit float, scaled to -1..1; not E2M1. */
  FP4(51, 4),
  /** OCP's 4-bit float: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. */
  F4_E2M1(52, 4);

  private final int id;
  private final int bits;

  Encoding(int id, int bits) {
    this.id = id;
    this.bits = bits;
  }

  /** The number by which the native library knows this encoding. */
  public int id() {
    return id;
  }

  /** Bits of one code. */
  public int bits() {
    return bits;
  }

  /** Whether this is a plain number (F32, F16, BF16) rather than a quantized code. */
  public boolean isPlain() {
    return this == F32 || this == F16 || this == BF16;
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
