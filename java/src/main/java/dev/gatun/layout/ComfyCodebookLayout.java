package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * ComfyUI's {@code asym_w4a8_int8}: 4-bit codes of a codebook times a relative scale per group give
 * 8-bit integers, which one F32 scale per row turns into the numbers of a rotated weight.
 *
 * @param group weights of a row that share a relative scale
 * @param rotation size of the Hadamard matrix that the weight was multiplied by
 */
public record ComfyCodebookLayout(long group, int rotation) implements Layout {
  @Override
  public String name() {
    return "comfyui.asym_w4a8_int8";
  }

  @Override
  public Encoding encoding() {
    return Encoding.U4;
  }

  @Override
  public String describe() {
    return "4-bit codebook, one scale per "
        + group
        + " weights, rounded to 8-bit integers, one scale per row, rotated by "
        + rotation;
  }

  /**
   * The weight as a matrix.
   *
   * @param codebook 16 floats; absent: a code stands for itself less 8
   * @param relative one scale per group
   * @param rows one float per row
   */
  public Matrix matrix(
      long n,
      long k,
      MemorySegment codes,
      Optional<MemorySegment> codebook,
      Matrix.Values relative,
      MemorySegment rows,
      Encoding dtype) {
    return Matrix.builder(n, k, Encoding.U4, codes)
        .granularity(Granularity.perGroup(k, group))
        .scales(relative)
        .codebook(codebook)
        .zeroPoint(codebook.isPresent() ? 0 : 8)
        .rowScales(rows)
        .rotation(rotation)
        .result(dtype)
        .build();
  }
}
