package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import java.util.List;
import java.util.Optional;

/**
 * The types of tensors in files: those of the safetensors format first, in its own order (a writer
 * puts the last first), then GGUF's blocks, which hold codes and scales of several elements.
 */
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
  U64(64),

  Q4_0(32, 18),
  Q4_1(32, 20),
  Q5_0(32, 22),
  Q5_1(32, 24),
  Q8_0(32, 34),
  Q8_1(32, 36),
  Q2_K(256, 84),
  Q3_K(256, 110),
  Q4_K(256, 144),
  Q5_K(256, 176),
  Q6_K(256, 210),
  Q8_K(256, 292),
  IQ2_XXS(256, 66),
  IQ2_XS(256, 74),
  IQ3_XXS(256, 98),
  IQ1_S(256, 50),
  IQ4_NL(32, 18),
  IQ3_S(256, 110),
  IQ2_S(256, 82),
  IQ4_XS(256, 136),
  IQ1_M(256, 56),
  TQ1_0(256, 54),
  TQ2_0(256, 66),
  MXFP4(32, 17),
  NVFP4(64, 36),
  Q1_0(128, 18),
  Q2_0(64, 18);

  private final int bits;
  private final int blockElements;
  private final int blockBytes;

  /** A type of elements that stand for themselves. */
  DType(int bits) {
    this.bits = bits;
    this.blockElements = 1;
    this.blockBytes = 0;
  }

  /** A type of blocks. */
  DType(int blockElements, int blockBytes) {
    this.bits = 0;
    this.blockElements = blockElements;
    this.blockBytes = blockBytes;
  }

  /** Bits of one element; 0 for a type of blocks. */
  public int bits() {
    return bits;
  }

  /** Whether this is one of GGUF's blocks: elements cannot be told apart without decoding one. */
  public boolean isBlock() {
    return bits == 0;
  }

  /** Consecutive elements of a row in one block; 1 for a type that has none. */
  public int blockElements() {
    return blockElements;
  }

  /**
   * Bytes of a tensor of this type.
   *
   * @throws ArithmeticException when they overflow, are not whole, or a row is not whole blocks
   */
  long byteSize(List<Long> shape) {
    long elements = 1;
    for (long size : shape) {
      if (size < 0) {
        throw new ArithmeticException("negative size");
      }
      elements = Math.multiplyExact(elements, size);
    }
    if (isBlock()) {
      if (shape.isEmpty() || shape.getLast() % blockElements != 0) {
        throw new ArithmeticException("part of a block");
      }
      return Math.multiplyExact(elements / blockElements, (long) blockBytes);
    }
    long all = Math.multiplyExact(elements, (long) bits);
    if (all % 8 != 0) {
      throw new ArithmeticException("part of a byte");
    }
    return all / 8;
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
      default -> isBlock() ? Encoding.named(name()) : Optional.empty();
    };
  }
}
