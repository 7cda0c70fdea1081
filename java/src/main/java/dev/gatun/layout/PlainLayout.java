package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Locale;
import java.util.Optional;

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
    return new Matrix(
        n,
        k,
        encoding,
        false,
        0,
        codes,
        Granularity.perTensor(n, k),
        Optional.empty(),
        Optional.empty(),
        1f,
        Optional.empty(),
        0,
        Optional.empty(),
        false,
        Encoding.F32,
        encoding);
  }
}
