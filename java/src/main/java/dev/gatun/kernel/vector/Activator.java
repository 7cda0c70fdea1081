package dev.gatun.kernel.vector;

import dev.gatun.Epilogue;

/**
 * GELU, its tanh form and SiLU, as plain loops over pieces that stay in the L1 cache and that the
 * JIT compiler turns into vector code. Keeps its working memory.
 *
 * <pre>
 *   exp x   2^n · e^r, n = round(x / ln 2), r = x - n ln 2 with ln 2 in two parts, e^r by its series
 *   Φ(-a)   erfc(z) / 2, z = a/√2, erfc(z) = t · e^(P(t) - z²), t = 1 / (1 + z/2); P is a Chebyshev
 *           fit of degree 9, so that small tails keep their digits
 *   GELU    v · Φ(v), with Φ(v) = 1 - Φ(-v) for positive v
 *   tanh    (1 + tanh u) / 2 is the logistic function of 2u
 * </pre>
 */
final class Activator {
  private static final int PIECE = 512;

  private static final float LOG2_E = 1.44269504f;

  /** Of so few bits that its multiples by small integers are exact. */
  private static final float LN2_HIGH = 0.693359375f;

  private static final float LN2_LOW = (float) (Math.log(2) - 0.693359375);

  /** Adding it leaves the nearest integer in the low bits. */
  private static final float WHOLE = 0x1.8p23f;

  private static final int WHOLE_BITS = Float.floatToRawIntBits(WHOLE);

  /** Beyond it erfc is 0 in floats. */
  private static final float FAR = 14f;

  private static final float SQRT_HALF = (float) Math.sqrt(0.5);
  private static final float TWO_SQRT_2_OVER_PI = (float) (2 * Math.sqrt(2 / Math.PI));

  private final float[] powers = new float[PIECE];
  private final float[] factors = new float[PIECE];

  /** Activates {@code count} numbers in place. */
  void apply(Epilogue.Activation activation, float[] a, int at, int count) {
    for (int done = 0; done < count; done += PIECE) {
      int part = Math.min(PIECE, count - done);
      switch (activation) {
        case NONE -> {}
        case GELU -> gelu(a, at + done, part);
        case GELU_TANH -> geluTanh(a, at + done, part);
        case SILU -> silu(a, at + done, part);
      }
    }
  }

  private void silu(float[] a, int at, int count) {
    for (int i = 0; i < count; i++) {
      powers[i] = -a[at + i];
    }
    divideByLogistic(a, at, count);
  }

  private void geluTanh(float[] a, int at, int count) {
    for (int i = 0; i < count; i++) {
      float v = a[at + i];
      powers[i] = -TWO_SQRT_2_OVER_PI * (v + v * v * (v * 0.044715f));
    }
    divideByLogistic(a, at, count);
  }

  /** {@code v / (1 + e^p)}. */
  private void divideByLogistic(float[] a, int at, int count) {
    exp(powers, count);
    for (int i = 0; i < count; i++) {
      a[at + i] /= 1 + powers[i];
    }
  }

  private void gelu(float[] a, int at, int count) {
    for (int i = 0; i < count; i++) {
      float z = Math.min(FAR, Math.abs(a[at + i]) * SQRT_HALF);
      float t = 1 / (1 + 0.5f * z);
      float p = 1.6350527e-1f * t - 7.8085464e-1f;
      p = p * t + 1.3890574f;
      p = p * t - 1.0007508f;
      p = p * t + 1.6704954e-1f;
      p = p * t - 1.273507e-1f;
      p = p * t + 7.7251121e-2f;
      p = p * t + 3.77980918e-1f;
      p = p * t + 9.99606013e-1f;
      p = p * t - 1.26549399f;
      powers[i] = p - z * z;
      factors[i] = 0.5f * t;
    }
    exp(powers, count);
    for (int i = 0; i < count; i++) {
      float v = a[at + i];
      float tail = factors[i] * powers[i]; // Φ(-|v|)
      a[at + i] = v * (v < 0 ? tail : 1 - tail);
    }
  }

  /** In place. NaN stays. */
  private static void exp(float[] a, int count) {
    for (int i = 0; i < count; i++) {
      float v = Math.min(89f, Math.max(-110f, a[i]));
      float shifted = v * LOG2_E + WHOLE;
      float n = shifted - WHOLE;
      float r = v - n * LN2_HIGH - n * LN2_LOW;
      float p = r * (1f / 5040) + 1f / 720;
      p = p * r + 1f / 120;
      p = p * r + 1f / 24;
      p = p * r + 1f / 6;
      p = p * r + 0.5f;
      p = p * r + 1;
      p = p * r + 1;
      // 2^n may lie beyond the normal floats: it is multiplied by in halves.
      int exponent = Float.floatToRawIntBits(shifted) - WHOLE_BITS;
      int half = exponent >> 1;
      float low = Float.intBitsToFloat((half + 127) << 23);
      float high = Float.intBitsToFloat((exponent - half + 127) << 23);
      a[i] = p * low * high;
    }
  }
}
