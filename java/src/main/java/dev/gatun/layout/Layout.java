package dev.gatun.layout;

import dev.gatun.Encoding;

/**
 * Encoding, scales, zero points, granularity and where each part lies: all that is needed to
 * dequantize one tensor. One class a layout; an instance holds what varies from tensor to tensor
 * (block size, nesting …).
 */
public interface Layout {
  /**
   * The registry's name: {@code comfyui.float8_e4m3fn}, {@code bitsandbytes.nf4}, {@code
   * quanto.qint8}.
   */
  String name();

  /** How one code is stored. */
  Encoding encoding();

  /** One line for people: "4-bit NF4, one F32 scale per 64 weights, scales quantized to 8 bits". */
  String describe();
}
