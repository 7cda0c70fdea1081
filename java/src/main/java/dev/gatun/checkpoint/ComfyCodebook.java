package dev.gatun.checkpoint;

import java.util.Arrays;

/**
 * The 16 values of {@code asym_w4a8_int8}: those that suit normally distributed numbers divided by
 * the largest of their 16, unless the weight's own have heavier tails; then the least squares'
 * (Lloyd's) are fitted to them. The first are comfy-kitchen's table; it fits to random samples of
 * large weights, so that fitted tables differ from its.
 */
final class ComfyCodebook {
  private static final float[] NORMAL = {
    -0.980602f, -0.794529f, -0.638165f, -0.500986f, -0.377321f, -0.263187f, -0.155210f, -0.050720f,
    0.052541f, 0.156985f, 0.265284f, 0.379533f, 0.502636f, 0.638953f, 0.794876f, 0.980671f
  };

  /** Excess kurtosis up to which a weight counts as normally distributed. */
  private static final double HEAVY_TAILS = -0.1;

  private static final float SMALLEST = 1e-8f;
  private static final int SAMPLES = 300_000;
  private static final int ITERATIONS = 25;

  private ComfyCodebook() {}

  /** The codebook for a rotated weight, rising. */
  static float[] of(WeightRows rows) {
    double count = 0;
    double mean = 0;
    double second = 0;
    double third = 0;
    double fourth = 0;
    // Central moments, updated number by number.
    float[] room = rows.room();
    for (long row = 0; row < rows.n(); row++) {
      for (double x : normalized(rows.row(row, room))) {
        double before = count++;
        double delta = x - mean;
        double step = delta / count;
        double term = delta * step * before;
        mean += step;
        fourth +=
            term * step * step * (count * count - 3 * count + 3)
                + 6 * step * step * second
                - 4 * step * third;
        third += term * step * (count - 2) - 3 * step * second;
        second += term;
      }
    }
    double variance = second / Math.max(1, count - 1);
    double kurtosis = fourth / count / (variance * variance) - 3;
    return kurtosis > HEAVY_TAILS ? fit(sample(rows)) : NORMAL.clone();
  }

  /** Divided by the largest magnitude of each group. */
  private static float[] normalized(float[] row) {
    int group = ComfyFormat.CODEBOOK_GROUP;
    for (int start = 0; start < row.length; start += group) {
      float largest = Math.max(WeightRows.largest(row, start, start + group), SMALLEST);
      for (int i = start; i < start + group; i++) {
        row[i] /= largest;
      }
    }
    return row;
  }

  /** Numbers at even distances, sorted. */
  private static float[] sample(WeightRows rows) {
    long all = rows.n() * rows.k();
    long step = Math.max(1, Math.ceilDiv(all, SAMPLES));
    float[] samples = new float[(int) Math.ceilDiv(all, step)];
    int taken = 0;
    float[] room = rows.room();
    for (long row = 0; row < rows.n(); row++) {
      float[] values = normalized(rows.row(row, room));
      long first = taken * step - row * values.length;
      for (long i = first; i < values.length; i += step) {
        samples[taken++] = values[(int) i];
      }
    }
    Arrays.sort(samples);
    return samples;
  }

  /**
   * From equal shares on, each value is moved to the mean of the samples that are nearest to it.
   */
  private static float[] fit(float[] sorted) {
    int size = NORMAL.length;
    float[] codebook = new float[size];
    for (int i = 0; i < size; i++) {
      codebook[i] = sorted[(int) ((long) (sorted.length - 1) * i / (size - 1))];
    }
    for (int iteration = 0; iteration < ITERATIONS; iteration++) {
      double[] sums = new double[size];
      long[] counts = new long[size];
      int nearest = 0;
      for (float x : sorted) {
        while (nearest + 1 < size
            && Math.abs(x - codebook[nearest + 1]) < Math.abs(x - codebook[nearest])) {
          nearest++;
        }
        sums[nearest] += x;
        counts[nearest]++;
      }
      for (int i = 0; i < size; i++) {
        codebook[i] = counts[i] == 0 ? codebook[i] : (float) (sums[i] / counts[i]);
      }
    }
    Arrays.sort(codebook);
    return codebook;
  }
}
