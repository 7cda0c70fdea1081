package dev.gatun.kernel;

/**
 * How the scales of a matrix lie, and in what order they are multiplied by. The ids are those of
 * {@code gatun.h}.
 */
public enum ScaleOrder {
  /** At the index that the {@link Granularity} gives. */
  STRIDED(0),
  /**
   * cuBLAS' tiles of 128 rows and 4 scales in 512 bytes, padded to whole tiles: of scale (r, c) of
   * a tile the offset is {@code (r % 32) · 16 + r / 32 · 4 + c} (ComfyUI's nvfp4 and mxfp8).
   */
  BLOCKED_128X4(1),
  /**
   * Strided; the code times its own scale is rounded to {@code arithmetic} before it is multiplied
   * by the global scale (bitsandbytes' LLM.int8()).
   */
  THEN_GLOBAL(2);

  private final int id;

  ScaleOrder(int id) {
    this.id = id;
  }

  /** The number by which the native library knows this order. */
  public int id() {
    return id;
  }
}
