package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Locale;

/**
 * GGUF's blocks: runs of a row that hold their own codes and scales.
 *
 * @param encoding Q4_0, Q4_K …
 */
public record GgufLayout(Encoding encoding) implements Layout {
  @Override
  public String name() {
    return "gguf." + encoding.name().toLowerCase(Locale.ROOT);
  }

  @Override
  public String describe() {
    return "GGUF "
        + encoding
        + ", blocks of "
        + encoding.blockElements()
        + " weights in "
        + encoding.blockBytes()
        + " bytes";
  }

  /**
   * The weight as a matrix.
   *
   * @param codes N · K / block elements blocks, row-major
   * @param scale multiplies every weight; 1 where there is none
   */
  public Matrix matrix(long n, long k, MemorySegment codes, float scale) {
    return Matrix.builder(n, k, encoding, codes).globalScale(scale).build();
  }
}
