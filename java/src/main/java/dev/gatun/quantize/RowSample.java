package dev.gatun.quantize;

import java.util.Arrays;
import java.util.Random;

/** Rows drawn evenly from all that went by: each has the same chance to be among them. */
final class RowSample {
  private static final int ROWS = 256;

  private final Random random = new Random(1);
  private final int width;
  private float[] rows = {};
  private long seen;

  RowSample(int width) {
    this.width = width;
  }

  /** Whole rows, one after the other. */
  void add(float[] x) {
    for (int at = 0; width > 0 && at < x.length; at += width, seen++) {
      int row = (int) Math.min(seen, random.nextLong(seen + 1));
      if (seen < ROWS) {
        row = (int) seen;
        rows = Arrays.copyOf(rows, rows.length + width);
      }
      if (row < ROWS) {
        System.arraycopy(x, at, rows, row * width, width);
      }
    }
  }

  float[] rows() {
    return rows.clone();
  }
}
