package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.Linear;
import dev.gatun.Rounding;
import dev.gatun.kernel.Backend;
import java.lang.foreign.MemorySegment;

/**
 * How far a layer's y strays when its x is rounded: relative in each row, or few tokens of huge
 * activations would decide. What a scale of x is judged by where the numbers of x alone say too
 * little: it may be better to clip one outlier than to round everything else coarsely.
 */
final class OutputError {
  /** Scales that are tried, each so much smaller than the one before: the least is 1/64. */
  private static final int STEPS = 24;

  private static final double STEP = Math.pow(2, -0.25);
  private static final double FAR = 3;

  private final Backend backend;
  private final Linear linear;
  private final float[] x;
  private final float[] exact;
  private final int m;

  /**
   * @param linear multiplies without rounding
   * @param x rows of numbers
   * @param backend rounds x
   */
  OutputError(Linear linear, float[] x, Backend backend) {
    this(linear, x, multiply(linear, x), backend);
  }

  /**
   * With the products that x should have.
   *
   * @param exact m rows of them
   */
  OutputError(Linear linear, float[] x, float[] exact, Backend backend) {
    this.backend = backend;
    this.linear = linear;
    this.x = x;
    this.m = Math.toIntExact(x.length / linear.inFeatures());
    this.exact = exact;
  }

  static float[] multiply(Linear linear, float[] x) {
    int rows = Math.toIntExact(x.length / linear.inFeatures());
    float[] y = new float[Math.toIntExact(rows * linear.outFeatures())];
    linear.forward(MemorySegment.ofArray(x), rows, MemorySegment.ofArray(y));
    return y;
  }

  /**
   * A scale and what it costs.
   *
   * @param error the sum of squares, relative in each row, over all rows
   */
  record Found(float scale, double error) {}

  /**
   * The best scale at or below the one that clips nothing.
   *
   * @param largest magnitude of all that x may be; not 0
   * @param reciprocal see {@link Rounding}
   */
  Found best(float largest, Encoding encoding, boolean reciprocal) {
    float widest = largest / Rounding.largest(encoding);
    Found best = new Found(widest, Double.POSITIVE_INFINITY);
    for (int i = 0; i <= STEPS; i++) {
      float scale = (float) (widest * Math.pow(STEP, i));
      if (!(scale > 0) || !Float.isFinite(scale)) {
        break;
      }
      double error = of(new Rounding(encoding, scale, reciprocal));
      if (error < best.error) {
        best = new Found(scale, error);
      } else if (error > FAR * best.error) {
        break; // what is clipped from here on costs more with every step
      }
    }
    return best;
  }

  private double of(Rounding rounding) {
    float[] rounded = new float[x.length];
    int k = Math.toIntExact(linear.inFeatures());
    backend.round(
        rounding,
        MemorySegment.ofArray(x),
        Encoding.F32,
        k,
        m,
        k,
        null,
        MemorySegment.ofArray(rounded),
        Encoding.F32,
        k,
        0);
    float[] y = multiply(linear, rounded);
    int n = m == 0 ? 0 : y.length / m;
    double sum = 0;
    for (int row = 0; row < m; row++) {
      double error = 0;
      double size = 0;
      for (int i = row * n; i < (row + 1) * n; i++) {
        error += ((double) y[i] - exact[i]) * ((double) y[i] - exact[i]);
        size += (double) exact[i] * exact[i];
      }
      sum += size == 0 ? 0 : error / size;
    }
    return sum;
  }
}
