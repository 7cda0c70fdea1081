package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Locale;

/**
 * Plain numbers without scales, so that an unquantized weight goes through the same kernels.
 *
 * @param encoding F32, F16 or BF16
 */
public record PlainLayout(Encoding encoding) implements Layout {
  @Override
  public String name() {
    return "plain." + encoding.name().toLowerCase(Locale.ROOT);
  }

  @Override
  public String describe() {
    return encoding.bits() + "-bit " + encoding + ", not quantized";
  }

  /** The weight as a matrix: codes are N × K numbers, row-major. */
  public Matrix matrix(long n, long k, MemorySegment codes) {
    return Matrix.builder(n, k, encoding, codes).result(encoding).build();
  }
}
