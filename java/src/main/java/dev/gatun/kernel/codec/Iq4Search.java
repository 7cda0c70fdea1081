package dev.gatun.kernel.codec;

import java.lang.foreign.MemorySegment;

/**
 * An IQ4_NL block for 32 numbers, with ggml's own bytes: x ≈ d · value(code), d by least squares
 * with the weights x² for the codes at a number of spacings, of which the best is taken. Every
 * product and sum is rounded to float. Source: ggml-quants.c, quantize_iq4_nl.
 */
final class Iq4Search {
  private static final float[] VALUES = GgufBlocks.iq4();

  /** Spacings that are tried on either side of the one that makes the largest number exact. */
  private static final int TRIES = 7;

  /** Blocks of smaller numbers are blocks of zeros. */
  private static final float SMALLEST = 1e-15f;

  private final float[] x;
  private final float[] weights;
  private float products;
  private float squares;

  private Iq4Search(float[] x) {
    this.x = x;
    this.weights = new float[x.length];
    for (int j = 0; j < x.length; j++) {
      weights[j] = x[j] * x[j];
    }
  }

  /** Stores the block's scale and gives its codes. */
  static int[] codes(float[] x, MemorySegment out, long at) {
    float d = new Iq4Search(x).scale();
    GgufQuantizer.putF16(out, at, d);
    float reciprocal = d != 0 ? 1f / d : 0f;
    int[] codes = new int[x.length];
    for (int j = 0; j < x.length; j++) {
      codes[j] = nearest(reciprocal * x[j]);
    }
    return codes;
  }

  private float scale() {
    float largest = 0;
    float signed = 0;
    for (float v : x) {
      if (Math.abs(v) > largest) {
        largest = Math.abs(v);
        signed = v;
      }
    }
    if (largest < SMALLEST) {
      return 0;
    }
    sum(1f / (-signed / VALUES[0]));
    float d = products / squares;
    float best = d * products;
    for (int step = -TRIES; step <= TRIES; step++) {
      sum((step + VALUES[0]) / signed);
      if (squares > 0 && products * products > best * squares) {
        d = products / squares;
        best = d * products;
      }
    }
    return d;
  }

  /** Σ w·v·x and Σ w·v² over the values that are nearest to the numbers times a reciprocal. */
  private void sum(float reciprocal) {
    products = 0;
    squares = 0;
    for (int j = 0; j < x.length; j++) {
      float value = VALUES[nearest(reciprocal * x[j])];
      float weighted = weights[j] * value;
      products += weighted * x[j];
      squares += weighted * value;
    }
  }

  /** The code of the nearest value; of two as near, the upper one. */
  private static int nearest(float v) {
    int above = 1;
    while (above < VALUES.length - 1 && VALUES[above] <= v) {
      above++;
    }
    return v - VALUES[above - 1] < VALUES[above] - v ? above - 1 : above;
  }
}
