package dev.gatun.kernel.codec;

/**
 * The regular Hadamard matrix {@code kron(H4, H4, …) / √G} with H4 = [[1,1,1,-1], [1,1,-1,1],
 * [1,-1,1,1], [-1,1,1,1]]: symmetric and its own inverse (ComfyUI's convrot).
 */
public final class Hadamard {
  private Hadamard() {}

  /** Whether there is a matrix of this size: a power of 4. */
  public static boolean exists(long size) {
    return size > 0 && Long.bitCount(size) == 1 && Long.numberOfTrailingZeros(size) % 2 == 0;
  }

  /**
   * Multiplies {@code size} numbers by the matrix, in place. Sums are made in double and rounded to
   * float once.
   */
  public static void apply(float[] v, int from, int size) {
    double[] d = new double[size];
    for (int i = 0; i < size; i++) {
      d[i] = v[from + i];
    }
    apply(d, 0, size);
    for (int i = 0; i < size; i++) {
      v[from + i] = (float) d[i];
    }
  }

  /** The same in double. */
  public static void apply(double[] v, int from, int size) {
    for (int step = 1; step < size; step *= 4) {
      for (int i = 0; i < size; i++) {
        if (i / step % 4 == 0) {
          int at = from + i;
          double a = v[at];
          double b = v[at + step];
          double c = v[at + 2 * step];
          double d = v[at + 3 * step];
          v[at] = a + b + c - d;
          v[at + step] = a + b - c + d;
          v[at + 2 * step] = a - b + c + d;
          v[at + 3 * step] = -a + b + c + d;
        }
      }
    }
    double factor = 1 / Math.sqrt(size);
    for (int i = from; i < from + size; i++) {
      v[i] *= factor;
    }
  }
}
