package dev.gatun.kernel.codec;

/**
 * Sums floats in the order of PyTorch's CPU kernel (aten/src/ATen/native/cpu/SumKernel.cpp), so
 * that the rounding errors are the same: eight lanes, four sums each, long runs in cascades.
 */
public final class TorchSum {
  private static final int LANES = 8;
  private static final int SUMS = 4;
  private static final int LEVELS = 4;

  private TorchSum() {}

  /** The sum of the first {@code count} numbers. */
  public static float of(float[] x, int count) {
    if (count < LANES) {
      return lane(x, 0, 1, count);
    }
    int vectors = count / LANES;
    float sum = 0;
    for (int i = vectors * LANES; i < count; i++) {
      sum += x[i];
    }
    for (int lane = 0; lane < LANES; lane++) {
      sum += lane(x, lane, LANES, vectors);
    }
    return sum;
  }

  /** Of numbers {@code step} apart. */
  private static float lane(float[] x, int first, int step, int count) {
    float[] sums = new float[SUMS];
    int whole = count / SUMS;
    for (int s = 0; s < SUMS; s++) {
      sums[s] = cascade(x, first + s * step, SUMS * step, whole);
    }
    for (int i = whole * SUMS; i < count; i++) {
      sums[0] += x[first + i * step];
    }
    return sums[0] + sums[1] + sums[2] + sums[3];
  }

  private static float cascade(float[] x, int first, int step, int count) {
    int log = 32 - Integer.numberOfLeadingZeros(Math.max(0, count - 1));
    int power = Math.max(4, log / LEVELS);
    int run = 1 << power;
    float[] level = new float[LEVELS];
    int i = 0;
    while (i + run <= count) {
      for (int j = 0; j < run; j++, i++) {
        level[0] += x[first + i * step];
      }
      for (int j = 1; j < LEVELS; j++) {
        level[j] += level[j - 1];
        level[j - 1] = 0;
        if ((i & (run << (j * power)) - (1 << (j * power))) != 0) {
          break;
        }
      }
    }
    for (; i < count; i++) {
      level[0] += x[first + i * step];
    }
    return level[0] + level[1] + level[2] + level[3];
  }
}
