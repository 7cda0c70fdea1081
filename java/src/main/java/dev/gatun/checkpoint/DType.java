package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import java.util.Optional;

/** The tensor types of the safetensors format, in its own order: a writer puts the last first. */
public enum DType {
  BOOL(8),
  F4(4),
  F6_E2M3(6),
  F6_E3M2(6),
  U8(8),
  I8(8),
  F8_E5M2(8),
  F8_E4M3(8),
  F8_E8M0(8),
  F8_E4M3FNUZ(8),
  F8_E5M2FNUZ(8),
  I16(16),
  U16(16),
  F16(16),
  BF16(16),
  I32(32),
  U32(32),
  F32(32),
  C64(64),
  F64(64),
  I64(64),
  U64(64);

  private final int bits;

  DType(int bits) {
    this.bits = bits;
  }

  /** Bits of one element. */
  public int bits() {
    return bits;
  }

  /** The encoding that kernels know this type by, when there is one. */
  public Optional<Encoding> encoding() {
    return switch (this) {
      case F32 -> Optional.of(Encoding.F32);
      case F16 -> Optional.of(Encoding.F16);
      case BF16 -> Optional.of(Encoding.BF16);
      case F8_E5M2 -> Optional.of(Encoding.F8_E5M2);
      case F8_E4M3 -> Optional.of(Encoding.F8_E4M3);
      case F8_E8M0 -> Optional.of(Encoding.F8_E8M0);
      case F8_E4M3FNUZ -> Optional.of(Encoding.F8_E4M3FNUZ);
      case F8_E5M2FNUZ -> Optional.of(Encoding.F8_E5M2FNUZ);
      case I8 -> Optional.of(Encoding.I8);
      case U8 -> Optional.of(Encoding.U8);
      default -> Optional.empty();
    };
  }
}
