package dev.gatun.kernel;

/**
 * How the codes of a matrix lie. b is the encoding's bits, w = 32 / b (rounded down) the codes of a
 * little-endian 32-bit word; code i of a byte or word is at bits b·i unless said otherwise. The ids
 * are those of {@code gatun.h}.
 *
 * <p>{@link Matrix#codeRowStride()} counts the bytes from one row to the next: of codes for the
 * first four orders, of tiles for {@link #TILES_8X16}; the others have none.
 */
public enum CodeOrder {
  /**
   * A row-major stream of bytes with 8 / b codes each; whole bytes for 8 bits, numbers or blocks
   * for the others.
   */
  LOW_FIRST(0),
  /** The same with the first code of a byte in its highest bits; 4 bits only (bitsandbytes). */
  HIGH_FIRST(1),
  /** Each row a little-endian stream of bits: code k at bits b·k (MLX). */
  BITS(2),
  /** Each row 32-bit words of w codes along K (compressed-tensors). */
  WORDS(3),
  /** Words of w codes along K, stored [ceil(K/w)][N]; for 3 bits 32 codes in 3 words (GPTQ). */
  WORDS_K(4),
  /**
   * Words of 8 4-bit codes along N, stored [K][ceil(N/8)], columns in the slots 0, 4, 1, 5, 2, 6,
   * 3, 7 (AWQ).
   */
  WORDS_N(5),
  /**
   * The rows of the [N·K/c, c] view, c being the columns that share a scale, are split in 8 / b
   * runs; one code of each run shares a byte, the first run in the lowest bits (quanto).
   */
  SPLIT_ROWS(6),
  /**
   * Tensor-core tiles of 8 rows and 16 columns, 8 of them side by side: 32-bit words [ceil(N/8)]
   * [ceil(K/128)][32 lanes][4]; 4 bits only (torchao's tile-packed int4).
   */
  TILES_8X16(7);

  private final int id;

  CodeOrder(int id) {
    this.id = id;
  }

  /** The number by which the native library knows this order. */
  public int id() {
    return id;
  }
}
