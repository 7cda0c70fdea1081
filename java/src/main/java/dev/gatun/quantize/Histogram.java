package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.Rounding;

/**
 * How often magnitudes occur, in bins of equal width. The width is a power of two and doubles, two
 * bins becoming one, when a number is beyond the last bin. NaN and infinity are not counted.
 */
final class Histogram {
  static final int BINS = 2048;

  private long[] counts = new long[BINS];
  private float width;
  private float largest;
  private long total;

  void add(float[] values, int count) {
    float most = 0;
    for (int i = 0; i < count; i++) {
      float magnitude = Math.abs(values[i]);
      most = magnitude < Float.POSITIVE_INFINITY ? Math.max(most, magnitude) : most;
    }
    largest = Math.max(largest, most);
    makeRoom(most);
    for (int i = 0; i < count; i++) {
      float magnitude = Math.abs(values[i]);
      if (magnitude < Float.POSITIVE_INFINITY) {
        counts[width == 0 ? 0 : (int) (magnitude / width)]++;
        total++;
      }
    }
  }

  private void makeRoom(float most) {
    if (most == 0) {
      return;
    }
    if (width == 0) { // until now there were zeros alone, in the first bin
      width = Math.max(Float.MIN_NORMAL, Math.scalb(2f, Math.getExponent(most)) / BINS);
    }
    while (most / width >= BINS) {
      long[] wider = new long[BINS];
      for (int i = 0; i < BINS; i++) {
        wider[i / 2] += counts[i];
      }
      counts = wider;
      width *= 2;
    }
  }

  /** The largest finite magnitude. */
  float largest() {
    return largest;
  }

  /**
   * The magnitude that this share of the numbers does not exceed, to the width of a bin.
   *
   * @param share 0..1
   */
  float quantile(double share) {
    long wanted = (long) Math.ceil(share * total);
    long seen = 0;
    for (int i = 0; i < BINS; i++) {
      seen += counts[i];
      if (seen >= wanted && seen > 0) {
        return Math.min(largest, (i + 1) * width);
      }
    }
    return largest;
  }

  /** The sum of squared errors when every number, taken at its bin's middle, is rounded. */
  double squaredError(Rounding rounding) {
    double sum = 0;
    for (int i = 0; i < BINS; i++) {
      if (counts[i] > 0) {
        float middle = Math.min(largest, (i + 0.5f) * width);
        double error = (double) middle - rounding.round(Encoding.F32, middle);
        sum += counts[i] * error * error;
      }
    }
    return sum;
  }
}
