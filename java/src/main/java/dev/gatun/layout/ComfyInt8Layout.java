package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;

/**
 * ComfyUI's {@code int8_tensorwise}: 8-bit integers with one F32 scale per tensor or per row,
 * computed in F32; rotated or not. Source: comfy-kitchen, TensorWiseINT8Layout.
 *
 * @param perRow one scale per row; else one per tensor
 * @param rotation size of the Hadamard matrix that the weight was multiplied by; 0: none
 */
public record ComfyInt8Layout(boolean perRow, int rotation) implements Layout {
  @Override
  public String name() {
    return "comfyui.int8_tensorwise";
  }

  @Override
  public Encoding encoding() {
    return Encoding.I8;
  }

  @Override
  public String describe() {
    return "8-bit integer, one scale per "
        + (perRow ? "row" : "tensor")
        + (rotation > 1 ? ", rotated by " + rotation : "");
  }

  /** The weight as a matrix. */
  public Matrix matrix(long n, long k, MemorySegment codes, Matrix.Values scales, Encoding dtype) {
    return Matrix.builder(n, k, Encoding.I8, codes)
        .granularity(perRow ? Granularity.perChannel(k) : Granularity.perTensor(n, k))
        .scales(scales)
        .rotation(rotation)
        .result(dtype)
        .build();
  }
}
