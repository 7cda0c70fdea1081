package dev.gatun.bench.demo;

import java.util.List;

/**
 * How near embeddings are to the original's.
 *
 * @param mean of the sentences' cosines
 * @param worst the smallest
 */
record Cosines(double mean, double worst) {
  /** Compares what two encoders make of the same batches. */
  static Cosines of(List<float[]> expected, List<float[]> actual, int width) {
    double sum = 0;
    double worst = 1;
    int count = 0;
    for (int batch = 0; batch < actual.size(); batch++) {
      float[] a = expected.get(batch);
      float[] b = actual.get(batch);
      for (int start = 0; start < b.length; start += width) {
        double cosine = cosine(a, b, start, width);
        sum += cosine;
        // not Math.min: NaN has to count as the worst
        worst = cosine >= worst ? worst : cosine;
        count++;
      }
    }
    return new Cosines(sum / count, worst);
  }

  private static double cosine(float[] a, float[] b, int start, int width) {
    double ab = 0;
    double aa = 0;
    double bb = 0;
    for (int i = start; i < start + width; i++) {
      ab += (double) a[i] * b[i];
      aa += (double) a[i] * a[i];
      bb += (double) b[i] * b[i];
    }
    return ab / Math.sqrt(aa * bb);
  }

  /** The lower of both, figure by figure. */
  Cosines lower(Cosines other) {
    return new Cosines(Math.min(mean, other.mean), Math.min(worst, other.worst));
  }
}
