package dev.gatun;

/** What the multiply of {@code linear} is done in. */
public enum Compute {
  /** Weights dequantized exactly; float products and sums. */
  F32(1),
  /** x and the dequantized weight rounded to bfloat16; float sums. */
  BF16(2),
  /** x quantized per row (absmax / 127, ties to even); integer products per scale block. */
  I8(3),
  /** The same, but x quantized per 32 consecutive k, as ggml's engine does. */
  I8_BLOCK(4);

  private final int id;

  Compute(int id) {
    this.id = id;
  }

  /** The number by which the native library knows this compute type. */
  public int id() {
    return id;
  }
}
