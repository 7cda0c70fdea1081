package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;

/**
 * ComfyUI's {@code awq_w4a16}: 4-bit integers less 8, one scale and one float offset per group,
 * laid [K/group, N] and computed in their type. Not AutoAWQ's layout.
 *
 * @param group weights of a row that share a scale
 */
public record ComfyAwqLayout(long group) implements Layout {
  @Override
  public String name() {
    return "comfyui.awq_w4a16";
  }

  @Override
  public Encoding encoding() {
    return Encoding.U4;
  }

  @Override
  public String describe() {
    return "4-bit integer, one scale and one offset per " + group + " weights";
  }

  /** The weight as a matrix. */
  public Matrix matrix(
      long n,
      long k,
      MemorySegment codes,
      Matrix.Values scales,
      Matrix.Values zeros,
      Encoding dtype) {
    return Matrix.builder(n, k, Encoding.U4, codes)
        .granularity(new Granularity.Tile(1, group, 1, n))
        .scales(scales)
        .zeroPoint(8)
        .offsets(zeros)
        .arithmetic(scales.type())
        .result(dtype)
        .build();
  }
}
