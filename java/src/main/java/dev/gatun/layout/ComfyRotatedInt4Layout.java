package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;

/**
 * ComfyUI's {@code convrot_w4a4}: signed 4-bit integers of a rotated weight, one F32 scale per row.
 *
 * @param rotation size of the Hadamard matrix that the weight was multiplied by
 */
public record ComfyRotatedInt4Layout(int rotation) implements Layout {
  @Override
  public String name() {
    return "comfyui.convrot_w4a4";
  }

  @Override
  public Encoding encoding() {
    return Encoding.I4;
  }

  @Override
  public String describe() {
    return "4-bit integer, one scale per row, rotated by " + rotation;
  }

  /** The weight as a matrix. */
  public Matrix matrix(long n, long k, MemorySegment codes, Matrix.Values scales, Encoding dtype) {
    return Matrix.builder(n, k, Encoding.I4, codes)
        .granularity(Granularity.perChannel(k))
        .scales(scales)
        .rotation(rotation)
        .result(dtype)
        .build();
  }
}
