package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Deviation;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.stream.IntStream;

/** Measures how far a quantized weight is from what it was made of. */
final class ErrorMeter {
  /** Numbers that are compared before the next stripe's. */
  private static final long NUMBERS = 1 << 18;

  private static final int STRIPES = 16;

  private final Deviation deviation;

  /** What the deviations of all parts of a weight add up to. */
  ErrorMeter(Deviation deviation) {
    this.deviation = deviation;
  }

  /**
   * Compares a whole matrix. It may be too large for a second one beside it in memory, so that the
   * cores share in it; in stripes, whose number does not depend on the machine: the sums are the
   * same everywhere.
   */
  static ErrorMeter measure(Matrix matrix, Tensor original, Backend backend) {
    long rows = Math.max(1, NUMBERS / Math.max(1, matrix.k()));
    return new ErrorMeter(
        IntStream.range(0, STRIPES)
            .parallel()
            .mapToObj(stripe -> stripe(matrix, original, backend, stripe * rows, rows))
            .toList()
            .stream()
            .reduce(Deviation.NONE, Deviation::plus));
  }

  /** Of {@code step} rows from the first one on, and again so many after all other stripes'. */
  private static Deviation stripe(
      Matrix matrix, Tensor original, Backend backend, long first, long step) {
    Encoding type = original.dtype().encoding().orElseThrow();
    long bytesPerRow = matrix.k() * type.bits() / 8;
    Deviation sum = Deviation.NONE;
    for (long row = first; row < matrix.n(); row += STRIPES * step) {
      long rows = Math.min(step, matrix.n() - row);
      MemorySegment source = original.data().asSlice(row * bytesPerRow, rows * bytesPerRow);
      sum = sum.plus(backend.deviation(matrix, row, rows, source, type));
    }
    return sum;
  }

  /** Whether every number that was quantized is one. */
  boolean isFinite() {
    return Double.isFinite(deviation.signal());
  }

  /** ‖W‖². */
  double signal() {
    return deviation.signal();
  }

  /** ‖W' − W‖². */
  double noise() {
    return deviation.noise();
  }

  /** 10 · log10 of their ratio; infinite without noise. */
  double snrDb() {
    return noise() == 0 ? Double.POSITIVE_INFINITY : 10 * Math.log10(signal() / noise());
  }

  LayerReport report(
      String layer,
      long rows,
      long columns,
      long bytesBefore,
      long bytesAfter,
      LayerReport.How how,
      String format) {
    double relative = noise() == 0 ? 0 : Math.sqrt(noise() / signal());
    return new LayerReport(
        layer,
        rows,
        columns,
        bytesBefore,
        bytesAfter,
        relative,
        snrDb(),
        deviation.largest(),
        how,
        format);
  }
}
