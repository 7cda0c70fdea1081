package dev.gatun.bench.demo;

/**
 * What a BERT encoder does between its linear layers, as plain loops over float arrays that the JIT
 * compiler turns into vector code: no calls and no branches in the inner loops, and several sums at
 * a time where order would forbid it.
 */
final class Elementwise {
  private static final float LOG2_E = (float) (1 / Math.log(2));

  /**
   * ln 2 in two parts, the first with so few bits that its multiples by small integers are exact.
   */
  private static final float LN2_HIGH = 0.693359375f;

  private static final float LN2_LOW = (float) (Math.log(2) - 0.693359375);

  /** Below it e^x is no normal float. */
  private static final float EXP_LEAST = -87.3f;

  private Elementwise() {}

  /**
   * e^x for x ≤ 0, to 2e-7 of its size: 2^n · e^r with the Taylor series of the rest; 0 below the
   * normal floats.
   */
  static float exp(float x) {
    float v = Math.max(EXP_LEAST, x);
    // Adding 1.5 · 2^23 leaves the nearest integer in the low bits.
    float shifted = v * LOG2_E + 12582912f;
    float n = shifted - 12582912f;
    float r = v - n * LN2_HIGH - n * LN2_LOW;
    float p = 1f / 720;
    p = p * r + 1f / 120;
    p = p * r + 1f / 24;
    p = p * r + 1f / 6;
    p = p * r + 0.5f;
    p = p * r + 1;
    p = p * r + 1;
    float power = Float.intBitsToFloat((Float.floatToRawIntBits(shifted) + 127) << 23);
    return x < EXP_LEAST ? 0 : p * power;
  }

  /** Softmax of {@code count} numbers from {@code start}, in place, after scaling them. */
  static void softmax(float[] x, int start, int count, float scale) {
    float largest = Float.NEGATIVE_INFINITY;
    for (int i = start; i < start + count; i++) {
      largest = Math.max(largest, x[i]);
    }
    for (int i = start; i < start + count; i++) {
      x[i] = exp((x[i] - largest) * scale);
    }
    float factor = 1 / sum(x, start, count);
    for (int i = start; i < start + count; i++) {
      x[i] *= factor;
    }
  }

  /** {@code x = LayerNorm(x + residual)} of one row of {@code width} numbers from {@code start}. */
  static void addAndNormalize(
      float[] x,
      float[] residual,
      int start,
      int width,
      float[] weight,
      float[] bias,
      float epsilon) {
    for (int i = 0; i < width; i++) {
      x[start + i] += residual[start + i];
    }
    normalize(x, start, width, weight, bias, epsilon);
  }

  /** LayerNorm of one row of {@code width} numbers from {@code start}, in place. */
  static void normalize(
      float[] x, int start, int width, float[] weight, float[] bias, float epsilon) {
    float mean = sum(x, start, width) / width;
    for (int i = start; i < start + width; i++) {
      x[i] -= mean;
    }
    float factor = (float) (1 / Math.sqrt(sumOfSquares(x, start, width) / width + epsilon));
    for (int i = 0; i < width; i++) {
      x[start + i] = x[start + i] * factor * weight[i] + bias[i];
    }
  }

  /**
   * The mean of {@code rows} rows of {@code width} numbers from {@code start}, into {@code out}
   * from {@code at}.
   */
  static void meanOfRows(float[] x, int start, int rows, int width, float[] out, int at) {
    java.util.Arrays.fill(out, at, at + width, 0);
    for (int row = 0; row < rows; row++) {
      for (int i = 0; i < width; i++) {
        out[at + i] += x[start + row * width + i];
      }
    }
    for (int i = 0; i < width; i++) {
      out[at + i] /= rows;
    }
  }

  /** Divides a vector by its Euclidean length. */
  static void toUnitLength(float[] x, int start, int width) {
    float factor =
        (float) (1 / Math.sqrt(Math.max(sumOfSquares(x, start, width), Float.MIN_NORMAL)));
    for (int i = start; i < start + width; i++) {
      x[i] *= factor;
    }
  }

  private static float sum(float[] x, int start, int count) {
    float a = 0;
    float b = 0;
    float c = 0;
    float d = 0;
    int i = start;
    for (; i + 4 <= start + count; i += 4) {
      a += x[i];
      b += x[i + 1];
      c += x[i + 2];
      d += x[i + 3];
    }
    for (; i < start + count; i++) {
      a += x[i];
    }
    return (a + b) + (c + d);
  }

  private static float sumOfSquares(float[] x, int start, int count) {
    float a = 0;
    float b = 0;
    float c = 0;
    float d = 0;
    int i = start;
    for (; i + 4 <= start + count; i += 4) {
      a += x[i] * x[i];
      b += x[i + 1] * x[i + 1];
      c += x[i + 2] * x[i + 2];
      d += x[i + 3] * x[i + 3];
    }
    for (; i < start + count; i++) {
      a += x[i] * x[i];
    }
    return (a + b) + (c + d);
  }
}
