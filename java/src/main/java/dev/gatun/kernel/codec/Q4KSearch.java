package dev.gatun.kernel.codec;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;

/**
 * A Q4_K block for 256 numbers: x ≈ d·scale·q − dmin·minimum with 8 scales and minima of 6 bits,
 * searched for the least squared error. Three steps: for each sub-block the best real scale and
 * minimum, by least squares for codes at a number of spacings; then the two binary16 factors and
 * the 6-bit numbers; then alternately the numbers around the present ones and the factors by least
 * squares, while that helps.
 */
final class Q4KSearch {
  private static final int SUB = 32;
  private static final int SUBS = 8;
  private static final int TOP = 15;
  private static final int ROUNDS = 4;

  /** Spacings that are tried: so many tenths of a step more or less than the range has. */
  private static final int TENTHS = 12;

  private final float[] x;
  private final double[] scale = new double[SUBS];
  private final double[] minimum = new double[SUBS];
  private final int[] scaleCode = new int[SUBS];
  private final int[] minimumCode = new int[SUBS];
  private final int[] q = new int[SUB * SUBS];
  private float d;
  private float dmin;

  Q4KSearch(float[] x) {
    this.x = x;
    double largestScale = 0;
    double largestMinimum = 0;
    for (int s = 0; s < SUBS; s++) {
      real(s);
      largestScale = Math.max(largestScale, scale[s]);
      largestMinimum = Math.max(largestMinimum, minimum[s]);
    }
    d = f16(largestScale / 63);
    dmin = f16(largestMinimum / 63);
    for (int s = 0; s < SUBS; s++) {
      scaleCode[s] = code(scale[s], d);
      minimumCode[s] = code(minimum[s], dmin);
    }
    double least = around();
    for (int round = 0; round < ROUNDS; round++) {
      Q4KSearch other = new Q4KSearch(this);
      other.factors();
      double error = other.around();
      if (!(error < least)) {
        break;
      }
      least = error;
      take(other);
    }
  }

  private Q4KSearch(Q4KSearch from) {
    x = from.x;
    take(from);
  }

  private void take(Q4KSearch from) {
    System.arraycopy(from.scaleCode, 0, scaleCode, 0, SUBS);
    System.arraycopy(from.minimumCode, 0, minimumCode, 0, SUBS);
    System.arraycopy(from.q, 0, q, 0, q.length);
    d = from.d;
    dmin = from.dmin;
  }

  private static float f16(double v) {
    return HalfFloat.fromF16(HalfFloat.toF16((float) v));
  }

  private static int code(double value, float factor) {
    return factor == 0 ? 0 : (int) Math.clamp(Math.rint(value / factor), 0, 63);
  }

  /** The best real scale and minimum of a sub-block. */
  private void real(int s) {
    double low = 0;
    double high = Double.NEGATIVE_INFINITY;
    for (int i = s * SUB; i < (s + 1) * SUB; i++) {
      low = Math.min(low, x[i]);
      high = Math.max(high, x[i]);
    }
    if (!(high > low)) { // all the same and not positive, or not a number
      minimum[s] = -low;
      return;
    }
    double least = Double.POSITIVE_INFINITY;
    for (int t = -TENTHS; t <= TENTHS; t++) {
      double perUnit = (TOP + 0.1 * t) / (high - low);
      double sumQ = 0;
      double sumQq = 0;
      double sumX = 0;
      double sumQx = 0;
      double sumXx = 0;
      for (int i = s * SUB; i < (s + 1) * SUB; i++) {
        double code = Math.clamp(Math.rint((x[i] - low) * perUnit), 0, TOP);
        sumQ += code;
        sumQq += code * code;
        sumX += x[i];
        sumQx += code * x[i];
        sumXx += (double) x[i] * x[i];
      }
      if (sumQq == 0) {
        continue;
      }
      double determinant = SUB * sumQq - sumQ * sumQ;
      double a = (SUB * sumQx - sumQ * sumX) / determinant;
      double m = (sumQ * sumQx - sumQq * sumX) / determinant;
      if (!(determinant > 0 && m >= 0)) { // minima are not negative: the best line through zero
        a = sumQx / sumQq;
        m = 0;
      }
      double error =
          sumXx + a * a * sumQq + SUB * m * m - 2 * a * sumQx + 2 * m * sumX - 2 * a * m * sumQ;
      if (error < least && a > 0) {
        least = error;
        scale[s] = a;
        minimum[s] = m;
      }
    }
  }

  /** The best 6-bit numbers and codes near the present ones; returns the squared error. */
  private double around() {
    double total = 0;
    int[] codes = new int[SUB];
    for (int s = 0; s < SUBS; s++) {
      double least = Double.POSITIVE_INFINITY;
      int scale0 = scaleCode[s];
      int minimum0 = minimumCode[s];
      for (int a = Math.max(0, scale0 - 1); a <= Math.min(63, scale0 + 1); a++) {
        for (int m = Math.max(0, minimum0 - 1); m <= Math.min(63, minimum0 + 1); m++) {
          double error = codes(s, d * a, dmin * m, codes);
          if (error < least) {
            least = error;
            scaleCode[s] = a;
            minimumCode[s] = m;
            System.arraycopy(codes, 0, q, s * SUB, SUB);
          }
        }
      }
      total += least;
    }
    return total;
  }

  private double codes(int s, float step, float base, int[] codes) {
    if (step == 0) {
      Arrays.fill(codes, 0);
    }
    double perStep = step == 0 ? 0 : 1.0 / step;
    double error = 0;
    for (int i = 0; i < SUB; i++) {
      double v = x[s * SUB + i];
      int code = (int) Math.clamp(Math.rint((v + base) * perStep), 0, TOP);
      double difference = step * code - base - v;
      codes[i] = code;
      error += difference * difference;
    }
    return error;
  }

  /** The best factors for the codes and 6-bit numbers, by least squares, rounded to binary16. */
  private void factors() {
    double aa = 0;
    double am = 0;
    double mm = 0;
    double ax = 0;
    double mx = 0;
    for (int i = 0; i < x.length; i++) {
      double a = scaleCode[i / SUB] * q[i];
      double m = minimumCode[i / SUB];
      aa += a * a;
      am += a * m;
      mm += m * m;
      ax += a * x[i];
      mx += m * x[i];
    }
    double determinant = aa * mm - am * am;
    if (determinant > 0) {
      d = f16((ax * mm - am * mx) / determinant);
      dmin = f16((am * ax - aa * mx) / determinant);
    } else if (aa > 0) {
      d = f16(ax / aa);
    }
  }

  void write(MemorySegment out, long at) {
    GgufQuantizer.putF16(out, at, d);
    GgufQuantizer.putF16(out, at + 2, dmin);
    for (int s = 0; s < 4; s++) {
      put(out, at + 4 + s, scaleCode[s] | scaleCode[s + 4] >> 4 << 6);
      put(out, at + 8 + s, minimumCode[s] | minimumCode[s + 4] >> 4 << 6);
      put(out, at + 12 + s, scaleCode[s + 4] & 15 | (minimumCode[s + 4] & 15) << 4);
    }
    for (int i = 0; i < 128; i++) {
      int low = i / SUB * 2 * SUB + i % SUB;
      put(out, at + 16 + i, q[low] | q[low + SUB] << 4);
    }
  }

  private static void put(MemorySegment out, long at, int value) {
    out.set(ValueLayout.JAVA_BYTE, at, (byte) value);
  }
}
