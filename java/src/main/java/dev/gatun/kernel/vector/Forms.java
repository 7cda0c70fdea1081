package dev.gatun.kernel.vector;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.Numbers;
import java.util.Arrays;

/** What of a matrix's description decides how it is run here. */
final class Forms {
  private Forms() {}

  /** Whether this compute type quantizes x and takes the codes as integers. */
  static boolean isInteger(Compute compute) {
    return compute == Compute.I8 || compute == Compute.I8_BLOCK;
  }

  /** Whether every weight has a code of its own: it is no part of a self-contained block. */
  static boolean hasCodes(Matrix m) {
    return !m.encoding().isBlock();
  }

  /** Whether nothing is done to the decoded codes at all. */
  static boolean isBare(Matrix m) {
    return m.scales().isEmpty()
        && m.globalScale() == 1f
        && m.zeros().isEmpty()
        && m.zeroPoint() == 0
        && m.offsets().isEmpty()
        && m.rowScales().isEmpty()
        && m.arithmetic() == Encoding.F32
        && m.result() == Encoding.F32;
  }

  /** Whether the codes are integers of more than four bits that mean themselves. */
  static boolean isInteger(Matrix m) {
    return m.codebook().isEmpty()
        && switch (m.encoding()) {
          case I8, U8, U7, U6, U5 -> true;
          default -> false;
        };
  }

  /** What the codes mean: 16 floats for up to 4 bits, 256 for more; none for plain numbers. */
  static float[] table(Matrix m) {
    int bits = m.encoding().bits();
    if (m.encoding().isPlain() || !hasCodes(m)) {
      return new float[0];
    }
    float[] values;
    if (m.codebook().isPresent()) {
      values = new float[1 << bits];
      for (int i = 0; i < values.length; i++) {
        values[i] = Numbers.get(Encoding.F32, m.codebook().get(), i);
      }
    } else {
      values = Codebooks.table(m.encoding());
    }
    return Arrays.copyOf(values, bits <= 4 ? 16 : 256);
  }

  /**
   * What a code's value is to an integer multiply: NF4's and FP4's are rounded to multiples of
   * 1/127, all else is exact.
   */
  static float integer(Matrix m, float value) {
    boolean rounded =
        m.codebook().isEmpty() && (m.encoding() == Encoding.NF4 || m.encoding() == Encoding.FP4);
    return rounded ? (float) (Math.rint(value * 127f) / 127.0) : value;
  }

  /** The table that an integer multiply takes. */
  static float[] integerTable(Matrix m, float[] table) {
    float[] integers = new float[table.length];
    for (int i = 0; i < table.length; i++) {
      integers[i] = integer(m, table[i]);
    }
    return integers;
  }

  /** A table less the zero point that all codes share; as it is when each group has its own. */
  static float[] less(float[] table, Matrix m) {
    float[] centred = table.clone();
    for (int i = 0; m.zeros().isEmpty() && i < table.length; i++) {
      centred[i] -= m.zeroPoint();
    }
    return centred;
  }

  /** Whether every bit of the codes' memory belongs to some code. */
  static boolean isDense(Matrix m) {
    return m.codes().byteSize() == m.n() * m.k() / 8.0 * m.encoding().bits();
  }

  /**
   * The smallest run of columns, the same in every row, within which all weights of a row share
   * their scale; runs start at its multiples. 0 when there is none of at least 8.
   */
  static int group(Matrix m) {
    long k = Math.max(1, m.k());
    long group =
        switch (m.granularity()) {
          case Granularity.Tile t -> Math.min(t.cols(), k);
          // Blocks start at the multiples of what divides both.
          case Granularity.Flat f -> gcd(k, f.block());
        };
    return group == k || group >= 8 ? (int) group : 0;
  }

  private static long gcd(long a, long b) {
    return b == 0 ? a : gcd(b, a % b);
  }

  /** Whether a thread may touch all of the matrix's memory. */
  static boolean isAccessible(Matrix m, Thread thread) {
    return m.memory().values().stream().allMatch(data -> data.isAccessibleBy(thread));
  }
}
