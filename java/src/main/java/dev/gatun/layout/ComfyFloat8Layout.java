package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * ComfyUI's 8-bit floats with one scale for the whole tensor: {@code code · scale}, both in the
 * type that is asked for (the scale is rounded to it first). comfy-kitchen, TensorCoreFP8Layout.
 *
 * @param encoding F8_E4M3 or F8_E5M2
 * @param scaled whether a scale is stored; without one it is 1
 */
public record ComfyFloat8Layout(Encoding encoding, boolean scaled) implements Layout {
  @Override
  public String name() {
    return encoding == Encoding.F8_E4M3 ? "comfyui.float8_e4m3fn" : "comfyui.float8_e5m2";
  }

  @Override
  public String describe() {
    return "8-bit float "
        + (encoding == Encoding.F8_E4M3 ? "e4m3fn" : "e5m2")
        + (scaled ? ", one scale per tensor" : ", no scale");
  }

  /**
   * The weight as a matrix.
   *
   * @param scale one F32, F16 or BF16 number when {@link #scaled()}
   * @param dtype what it is dequantized in
   */
  public Matrix matrix(
      long n, long k, MemorySegment codes, Optional<Matrix.Values> scale, Encoding dtype) {
    return Matrix.builder(n, k, encoding, codes)
        .scales(scale)
        .arithmetic(dtype)
        .result(dtype)
        .build();
  }
}
