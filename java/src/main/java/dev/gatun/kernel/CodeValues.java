package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.Numbers;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;

/** What the codes of a matrix mean, in ascending order: finite numbers, each once. */
final class CodeValues {
  private final Encoding encoding;
  private final boolean own;
  private final float[] values;
  private final int[] codes;
  private final float[] table;
  private final float[] middles;
  private final boolean integers;

  private CodeValues(Encoding encoding, boolean own, float[] table) {
    this.encoding = encoding;
    this.own = own;
    this.table = table;
    List<Integer> order = new ArrayList<>();
    for (int code = 0; code < table.length; code++) {
      if (Float.isFinite(table[code])) {
        order.add(code);
      }
    }
    order.sort(
        Comparator.<Integer>comparingDouble(code -> table[code] + 0.0) // -0 is 0
            .thenComparingInt(code -> code));
    List<Integer> distinct = new ArrayList<>();
    for (int code : order) {
      if (distinct.isEmpty() || table[distinct.getLast()] != table[code]) {
        distinct.add(code);
      }
    }
    codes = distinct.stream().mapToInt(code -> code).toArray();
    values = new float[codes.length];
    for (int i = 0; i < codes.length; i++) {
      values[i] = table[codes[i]];
    }
    middles = new float[Math.max(0, values.length - 1)];
    boolean steps = true;
    for (int i = 0; i < middles.length; i++) {
      middles[i] = (float) ((values[i] + (double) values[i + 1]) / 2);
      steps &= values[i + 1] - values[i] == 1;
    }
    integers = steps;
  }

  /** Of a matrix whose codes are looked up: not of self-contained blocks. */
  static CodeValues of(Matrix m) {
    float[] table = Codebooks.table(m.encoding());
    m.codebook()
        .ifPresent(
            book -> {
              for (int code = 0; code < table.length; code++) {
                table[code] = Numbers.get(Encoding.F32, book, code);
              }
            });
    return new CodeValues(m.encoding(), m.codebook().isPresent(), table);
  }

  float smallest() {
    return values[0];
  }

  float largest() {
    return values[values.length - 1];
  }

  /** Whether the numbers are as far apart from each other as 1 is from 0. */
  boolean areIntegers() {
    return integers;
  }

  /** The number nearest to a finite one. */
  float nearest(float x) {
    if (integers) {
      float whole = (float) Math.rint(x);
      return whole < values[0] ? values[0] : Math.min(whole, largest());
    }
    return values[above(x)];
  }

  /** The code of the nearest number; ties as the encoding's own. */
  int code(float x) {
    if (own) {
      return codes[above(x)];
    }
    return Codebooks.encode(encoding, Math.clamp(x, smallest(), largest()));
  }

  /** What a code means. */
  float value(int code) {
    return table[code];
  }

  /** How many middles lie strictly below. */
  private int above(float x) {
    int low = 0;
    int high = middles.length;
    while (low < high) {
      int middle = (low + high) >>> 1;
      if (x > middles[middle]) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }

  /**
   * The code of one of the two numbers around x: of the upper one when {@code unit} is below the
   * share of the way that x has gone.
   *
   * @param unit of [0, 1)
   */
  int drawn(double x, double unit) {
    int low = 0;
    int high = values.length - 1;
    while (low < high) {
      int middle = (low + high + 1) >>> 1;
      if (values[middle] <= x) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    if (low == values.length - 1 || x <= values[low]) {
      return codes[low];
    }
    double share = (x - values[low]) / ((double) values[low + 1] - values[low]);
    return codes[unit < share ? low + 1 : low];
  }
}
