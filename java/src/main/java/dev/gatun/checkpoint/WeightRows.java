package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.codec.Hadamard;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;

/**
 * The rows of a weight as floats, one at a time; rotated or not.
 *
 * @param weight F32, F16 or BF16, [N, K]
 * @param rotation size of the Hadamard matrix that each run of so many numbers is multiplied by,
 *     the sums rounded to the weight's type; 0: none. Divides K
 */
record WeightRows(Tensor weight, int rotation) {
  Encoding type() {
    return Parts.encoding(weight);
  }

  long n() {
    return weight.shape().get(0);
  }

  int k() {
    return Math.toIntExact(weight.shape().get(1));
  }

  /** Room for a row. */
  float[] room() {
    return new float[k()];
  }

  /**
   * Reads a row.
   *
   * @param values {@link #room}; the same from row to row, or a large weight's rows were garbage as
   *     large as itself
   * @return the same array
   */
  float[] row(long row, float[] values) {
    Encoding type = type();
    for (int i = 0; i < values.length; i++) {
      values[i] = Numbers.get(type, weight.data(), row * values.length + i);
    }
    if (rotation > 1) {
      for (int start = 0; start < values.length; start += rotation) {
        Hadamard.apply(values, start, rotation);
      }
      for (int i = 0; i < values.length; i++) {
        values[i] = HalfFloat.round(type, values[i]);
      }
    }
    return values;
  }

  /** The largest magnitude; NaN when there is one. */
  static float largest(float[] values, int from, int to) {
    float largest = 0;
    for (int i = from; i < to; i++) {
      largest = Math.max(largest, Math.abs(values[i]));
    }
    return largest;
  }

  /** The smallest number of a range. */
  static float min(float[] values, int from, int to) {
    float min = values[from];
    for (int i = from; i < to; i++) {
      min = Math.min(min, values[i]);
    }
    return min;
  }

  /** The largest number of a range. */
  static float max(float[] values, int from, int to) {
    float max = values[from];
    for (int i = from; i < to; i++) {
      max = Math.max(max, values[i]);
    }
    return max;
  }
}
