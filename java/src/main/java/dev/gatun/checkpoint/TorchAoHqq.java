package dev.gatun.checkpoint;

import dev.gatun.kernel.codec.TorchSum;

/**
 * 4-bit zeros by half-quadratic quantization (Badri, Shaji 2023) as torchao finds them on a CPU, in
 * F32: {@code inverse = 15 / (max - min)}, {@code code = round(w · inverse + zero)}; each zero
 * becomes the mean of {@code code - (w - e) · inverse}, e being the error shrunk towards zero, for
 * as long as the mean error of the whole weight falls. (On CUDA torchao does this in half
 * precision, where the order of sums decides.)
 */
final class TorchAoHqq {
  /** Keeps groups of equal weights from an infinite inverse. */
  static final float LARGEST_INVERSE = 2e4f;

  private static final float EXPONENT = (float) (0.7 - 1);
  private static final double BETA = 10;
  private static final double KAPPA = 1.01;
  private static final int ROUNDS = 20;
  private static final int LEVELS = 15;

  /** The weight by row and column. */
  @FunctionalInterface
  interface Values {
    float at(long row, long column);
  }

  /** What was found: of every group of every row. */
  record Zeros(float[] inverses, float[] zeros, int across) {
    float inverse(long row, long group) {
      return inverses[Math.toIntExact(row * across + group)];
    }

    float zero(long row, long group) {
      return zeros[Math.toIntExact(row * across + group)];
    }
  }

  private final Values values;
  private final int across;
  private final int group;
  private final float[] inverses;
  private final float[] zeros;
  private final float[] w;
  private final float[] target;

  TorchAoHqq(Values values, long n, long k, long group) {
    this.values = values;
    this.group = Math.toIntExact(group);
    this.across = Math.toIntExact(k / group);
    this.inverses = new float[Math.toIntExact(n * across)];
    this.zeros = new float[inverses.length];
    this.w = new float[this.group];
    this.target = new float[this.group];
  }

  Zeros run() {
    for (int i = 0; i < zeros.length; i++) {
      read(i);
      float min = w[0];
      float max = w[0];
      for (float v : w) {
        min = Math.min(min, v);
        max = Math.max(max, v);
      }
      inverses[i] = Math.min(LEVELS / (max - min), LARGEST_INVERSE);
      zeros[i] = (float) Math.rint(-min * inverses[i]);
    }
    double best = Double.POSITIVE_INFINITY;
    double beta = BETA;
    for (int round = 0; round < ROUNDS; round++) {
      double error = 0;
      for (int i = 0; i < zeros.length; i++) {
        error += error(i);
      }
      if (!(error < best)) {
        break;
      }
      best = error;
      for (int i = 0; i < zeros.length; i++) {
        zeros[i] = next(i, (float) (1 / beta));
      }
      beta *= KAPPA;
    }
    return new Zeros(inverses, zeros, across);
  }

  private void read(int index) {
    for (int i = 0; i < group; i++) {
      w[i] = values.at(index / across, (long) index % across * group + i);
    }
  }

  private static float code(float w, float inverse, float zero) {
    return Math.clamp((float) Math.rint(w * inverse + zero), 0, LEVELS);
  }

  private double error(int index) {
    read(index);
    double sum = 0;
    for (float v : w) {
      float code = code(v, inverses[index], zeros[index]);
      sum += Math.abs(v - (code - zeros[index]) / inverses[index]);
    }
    return sum;
  }

  private float next(int index, float step) {
    read(index);
    float inverse = inverses[index];
    float zero = zeros[index];
    for (int i = 0; i < group; i++) {
      float code = code(w[i], inverse, zero);
      float difference = w[i] - (code - zero) / inverse;
      float size = Math.abs(difference);
      float left = Math.max(0, size - step * (float) Math.pow(size, EXPONENT));
      target[i] = code - (w[i] - Math.signum(difference) * left) * inverse;
    }
    return TorchSum.of(target, group) / group;
  }
}
