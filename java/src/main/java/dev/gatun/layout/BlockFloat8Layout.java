package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;

/**
 * 8-bit floats with one scale per block of rows × columns, 128 × 128 as DeepSeek's checkpoints have
 * it; {@code code · scale} in F32, though the scales are named inverse ones.
 *
 * @param rows of a block
 * @param columns of a block
 */
public record BlockFloat8Layout(long rows, long columns) implements Layout {
  @Override
  public String name() {
    return "fp8.block";
  }

  @Override
  public Encoding encoding() {
    return Encoding.F8_E4M3;
  }

  @Override
  public String describe() {
    return "8-bit float e4m3fn, one scale per block of " + rows + " x " + columns;
  }

  /** The weight as a matrix; scales are laid row-major over the blocks. */
  public Matrix matrix(long n, long k, MemorySegment codes, Matrix.Values scales, Encoding dtype) {
    return Matrix.builder(n, k, Encoding.F8_E4M3, codes)
        .granularity(new Granularity.Tile(rows, columns, Math.ceilDiv(k, columns), 1))
        .scales(scales)
        .result(dtype)
        .build();
  }
}
