package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.kernel.codec.TorchSum;
import java.lang.foreign.MemorySegment;

/**
 * Shifts by half-quadratic quantization (Badri, Shaji 2023), as quanto's HqqOptimizer finds them:
 * the error of every weight is shrunk towards zero, {@code e = sign(d) · max(0, |d| - |d|^(p-1) /
 * beta)}, and each shift becomes the mean of {@code code · scale - (w - e)}, for as long as the
 * mean error of the whole weight falls. Every operation is rounded to the weight's type.
 */
final class QuantoHqq {
  private static final float EXPONENT = (float) (0.7 - 1);
  private static final double BETA = 10;
  private static final double KAPPA = 1.01;
  private static final int ROUNDS = 20;

  private final Tensor weight;
  private final MemorySegment scales;
  private final MemorySegment shifts;
  private final int columns;
  private final Encoding codes;
  private final Encoding type;
  private final float[] w;
  private final float[] target;

  /**
   * For groups of {@code columns} weights.
   *
   * @param shifts where the search begins; what it finds goes there
   * @param codes U2 or U4
   */
  QuantoHqq(
      Tensor weight, MemorySegment scales, MemorySegment shifts, long columns, Encoding codes) {
    this.weight = weight;
    this.scales = scales;
    this.shifts = shifts;
    this.columns = Math.toIntExact(columns);
    this.codes = codes;
    this.type = Parts.encoding(weight);
    this.w = new float[this.columns];
    this.target = new float[this.columns];
  }

  void run() {
    int groups = Math.toIntExact(weight.elements() / columns);
    float[] now = new float[groups];
    double best = 0;
    for (int group = 0; group < groups; group++) {
      now[group] = Numbers.get(type, shifts, group);
      read(group);
      best += error(scale(group), now[group]);
    }
    double beta = BETA;
    for (int round = 0; round < ROUNDS; round++) {
      double error = 0;
      for (int group = 0; group < groups; group++) {
        read(group);
        now[group] = next(scale(group), now[group], (float) (1 / beta));
        error += error(scale(group), now[group]);
      }
      if (!(error < best)) {
        return;
      }
      best = error;
      beta *= KAPPA;
      for (int group = 0; group < groups; group++) {
        Numbers.put(type, shifts, group, now[group]);
      }
    }
  }

  private float scale(int group) {
    return Numbers.get(type, scales, group);
  }

  private void read(int group) {
    for (int i = 0; i < columns; i++) {
      w[i] = Numbers.get(type, weight.data(), (long) group * columns + i);
    }
  }

  /** The code times the scale. */
  private float product(float w, float scale, float shift) {
    float q = round(round(w + shift) / scale);
    return round(Codebooks.decode(codes, Codebooks.encode(codes, q)) * scale);
  }

  private float next(float scale, float shift, float step) {
    for (int i = 0; i < columns; i++) {
      float product = product(w[i], scale, shift);
      float difference = round(w[i] - round(product - shift));
      float size = Math.abs(difference);
      float power = round((float) Math.pow(size, EXPONENT));
      float left = Math.max(0, round(size - round(step * power)));
      float e = round(Math.signum(difference) * left);
      target[i] = round(product - round(w[i] - e));
    }
    return round(TorchSum.of(target, columns) / columns);
  }

  private double error(float scale, float shift) {
    double sum = 0;
    for (int i = 0; i < columns; i++) {
      sum += Math.abs(round(w[i] - round(product(w[i], scale, shift) - shift)));
    }
    return sum;
  }

  private float round(float value) {
    return HalfFloat.round(type, value);
  }
}
