package dev.gatun.kernel.codec;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * A Q6_K block for 256 numbers: x ≈ d·scale·q with 16 scales of 8 bits and q of −32 to 31, searched
 * for the least squared error as {@link Q4KSearch} does.
 */
final class Q6KSearch {
  private static final int SUB = 16;
  private static final int SUBS = 16;
  private static final int ROUNDS = 4;

  /** Spacings that are tried: so many tenths of a step more or less than 32 to the largest. */
  private static final int TENTHS = 12;

  private final float[] x;
  private final double[] scale = new double[SUBS];
  private final int[] scaleCode = new int[SUBS];
  private final int[] q = new int[SUB * SUBS];
  private float d;

  Q6KSearch(float[] x) {
    this.x = x;
    double largest = 0;
    for (int s = 0; s < SUBS; s++) {
      real(s);
      largest = Math.abs(scale[s]) > Math.abs(largest) ? scale[s] : largest;
    }
    // The largest scale gets the code that reaches farthest, -128.
    d = f16(largest / -128);
    for (int s = 0; s < SUBS; s++) {
      scaleCode[s] = d == 0 ? 0 : (int) Math.clamp(Math.rint(scale[s] / d), -128, 127);
    }
    double least = around();
    for (int round = 0; round < ROUNDS; round++) {
      Q6KSearch other = new Q6KSearch(this);
      other.factor();
      double error = other.around();
      if (!(error < least)) {
        break;
      }
      least = error;
      take(other);
    }
  }

  private Q6KSearch(Q6KSearch from) {
    x = from.x;
    take(from);
  }

  private void take(Q6KSearch from) {
    System.arraycopy(from.scaleCode, 0, scaleCode, 0, SUBS);
    System.arraycopy(from.q, 0, q, 0, q.length);
    d = from.d;
  }

  private static float f16(double v) {
    return HalfFloat.fromF16(HalfFloat.toF16((float) v));
  }

  /** The best real scale of a sub-block; its sign is such that the largest number is negative. */
  private void real(int s) {
    double largest = 0;
    for (int i = s * SUB; i < (s + 1) * SUB; i++) {
      largest = Math.abs(x[i]) > Math.abs(largest) ? x[i] : largest;
    }
    if (largest == 0) {
      return;
    }
    double most = 0;
    for (int t = -TENTHS; t <= TENTHS; t++) {
      double perUnit = -(32 + 0.1 * t) / largest;
      double sumQq = 0;
      double sumQx = 0;
      for (int i = s * SUB; i < (s + 1) * SUB; i++) {
        double code = Math.clamp(Math.rint(x[i] * perUnit), -32, 31);
        sumQq += code * code;
        sumQx += code * x[i];
      }
      // The best scale for these codes takes sumQx² / sumQq off the squared error.
      if (sumQq > 0 && sumQx * sumQx > most * sumQq) {
        most = sumQx * sumQx / sumQq;
        scale[s] = sumQx / sumQq;
      }
    }
  }

  /** The best scales and codes near the present ones; returns the squared error. */
  private double around() {
    double total = 0;
    int[] codes = new int[SUB];
    for (int s = 0; s < SUBS; s++) {
      double least = Double.POSITIVE_INFINITY;
      int scale0 = scaleCode[s];
      for (int a = Math.max(-128, scale0 - 1); a <= Math.min(127, scale0 + 1); a++) {
        double error = codes(s, d * a, codes);
        if (error < least) {
          least = error;
          scaleCode[s] = a;
          System.arraycopy(codes, 0, q, s * SUB, SUB);
        }
      }
      total += least;
    }
    return total;
  }

  private double codes(int s, float step, int[] codes) {
    double perStep = step == 0 ? 0 : 1.0 / step;
    double error = 0;
    for (int i = 0; i < SUB; i++) {
      double v = x[s * SUB + i];
      codes[i] = (int) Math.clamp(Math.rint(v * perStep), -32, 31);
      double difference = step * codes[i] - v;
      error += difference * difference;
    }
    return error;
  }

  /** The best factor for the codes and scales, by least squares, rounded to binary16. */
  private void factor() {
    double aa = 0;
    double ax = 0;
    for (int i = 0; i < x.length; i++) {
      double a = scaleCode[i / SUB] * q[i];
      aa += a * a;
      ax += a * x[i];
    }
    if (aa > 0) {
      d = f16(ax / aa);
    }
  }

  void write(MemorySegment out, long at) {
    for (int half = 0; half < 2; half++) {
      for (int l = 0; l < 32; l++) {
        int first = 128 * half + l;
        int q1 = q[first] + 32;
        int q2 = q[first + 32] + 32;
        int q3 = q[first + 64] + 32;
        int q4 = q[first + 96] + 32;
        put(out, at + 64 * half + l, q1 & 15 | (q3 & 15) << 4);
        put(out, at + 64 * half + 32 + l, q2 & 15 | (q4 & 15) << 4);
        put(out, at + 128 + 32 * half + l, q1 >> 4 | q2 >> 4 << 2 | q3 >> 4 << 4 | q4 >> 4 << 6);
      }
    }
    for (int s = 0; s < SUBS; s++) {
      put(out, at + 192 + s, scaleCode[s]);
    }
    GgufQuantizer.putF16(out, at + 208, d);
  }

  private static void put(MemorySegment out, long at, int value) {
    out.set(ValueLayout.JAVA_BYTE, at, (byte) value);
  }
}
