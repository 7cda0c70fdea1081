package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.COUNT;
import static dev.gatun.kernel.vector.Lanes.FLOATS;

import jdk.incubator.vector.FloatVector;

/**
 * The multiply: sums[r][j] += Σ x[k][r] · w[k][j] for a tile of R rows of x and one panel of {@link
 * #WIDTH} outputs. R · 2 vectors of sums stay in registers; each step loads two vectors of w and
 * broadcasts R numbers of x. The rows of a tile of x lie side by side ([k][R]), so that it is read
 * as one stream.
 *
 * <p>The loops are written out, since a vector in an array would be a heap object.
 */
final class Tiles {
  /** Outputs of a panel. */
  static final int WIDTH = 2 * COUNT;

  /** Rows of the largest tile: 24 sums want 32 registers, which 256-bit machines lack. */
  static final int LARGE =
      FLOATS.vectorBitSize() == 512 || System.getProperty("os.arch").equals("aarch64") ? 12 : 4;

  static final int SMALL = 4;

  private Tiles() {}

  /**
   * Rows of the tile that {@code rows} rows begin with; a tile may have more rows than are left.
   */
  static int height(int rows) {
    return rows >= LARGE ? LARGE : rows > 1 ? SMALL : 1;
  }

  /** Rows with those that fill the last tile. */
  static int padded(int rows) {
    int large = rows / LARGE * LARGE;
    int left = rows - large;
    return large + (left > 1 ? (left + SMALL - 1) / SMALL * SMALL : left);
  }

  /**
   * One tile times one panel.
   *
   * @param height of the tile: {@link #LARGE}, {@link #SMALL} or 1
   * @param x [k][height] from {@code xAt} on
   * @param w [k][WIDTH]
   * @param sums [height][WIDTH] from {@code at} on
   * @param first whether the sums start at 0 instead of what is in {@code sums}
   */
  static void multiply(
      int height, float[] x, int xAt, float[] w, int k, float[] sums, int at, boolean first) {
    if (height == 1) {
      row1(x, xAt, w, k, sums, at, first);
    } else if (height == SMALL) {
      rows4(x, xAt, w, k, sums, at, first);
    } else {
      rows12(x, xAt, w, k, sums, at, first);
    }
  }

  private static FloatVector start(float[] sums, int at, int vector, boolean first) {
    return first
        ? FloatVector.zero(FLOATS)
        : FloatVector.fromArray(FLOATS, sums, at + vector * COUNT);
  }

  /** One row has too few sums to keep the multipliers busy: every fourth k has its own. */
  private static void row1(
      float[] x, int xAt, float[] w, int k, float[] sums, int at, boolean first) {
    FloatVector a0 = start(sums, at, 0, first);
    FloatVector a1 = start(sums, at, 1, first);
    FloatVector b0 = FloatVector.zero(FLOATS);
    FloatVector b1 = b0;
    FloatVector c0 = b0;
    FloatVector c1 = b0;
    FloatVector d0 = b0;
    FloatVector d1 = b0;
    int i = 0;
    for (; i < k - 3; i += 4) {
      int wi = i * WIDTH;
      FloatVector x0 = FloatVector.broadcast(FLOATS, x[xAt + i]);
      a0 = x0.fma(FloatVector.fromArray(FLOATS, w, wi), a0);
      a1 = x0.fma(FloatVector.fromArray(FLOATS, w, wi + 1 * COUNT), a1);
      FloatVector x1 = FloatVector.broadcast(FLOATS, x[xAt + i + 1]);
      b0 = x1.fma(FloatVector.fromArray(FLOATS, w, wi + 2 * COUNT), b0);
      b1 = x1.fma(FloatVector.fromArray(FLOATS, w, wi + 3 * COUNT), b1);
      FloatVector x2 = FloatVector.broadcast(FLOATS, x[xAt + i + 2]);
      c0 = x2.fma(FloatVector.fromArray(FLOATS, w, wi + 4 * COUNT), c0);
      c1 = x2.fma(FloatVector.fromArray(FLOATS, w, wi + 5 * COUNT), c1);
      FloatVector x3 = FloatVector.broadcast(FLOATS, x[xAt + i + 3]);
      d0 = x3.fma(FloatVector.fromArray(FLOATS, w, wi + 6 * COUNT), d0);
      d1 = x3.fma(FloatVector.fromArray(FLOATS, w, wi + 7 * COUNT), d1);
    }
    for (; i < k; i++) {
      int wi = i * WIDTH;
      FloatVector x0 = FloatVector.broadcast(FLOATS, x[xAt + i]);
      a0 = x0.fma(FloatVector.fromArray(FLOATS, w, wi), a0);
      a1 = x0.fma(FloatVector.fromArray(FLOATS, w, wi + COUNT), a1);
    }
    a0.add(b0).add(c0.add(d0)).intoArray(sums, at);
    a1.add(b1).add(c1.add(d1)).intoArray(sums, at + COUNT);
  }

  private static void rows4(
      float[] x, int xAt, float[] w, int k, float[] sums, int at, boolean first) {
    FloatVector a0 = start(sums, at, 0, first);
    FloatVector a1 = start(sums, at, 1, first);
    FloatVector b0 = start(sums, at, 2, first);
    FloatVector b1 = start(sums, at, 3, first);
    FloatVector c0 = start(sums, at, 4, first);
    FloatVector c1 = start(sums, at, 5, first);
    FloatVector d0 = start(sums, at, 6, first);
    FloatVector d1 = start(sums, at, 7, first);
    for (int i = 0; i < k; i++) {
      int wi = i * WIDTH;
      int xi = xAt + i * 4;
      FloatVector w0 = FloatVector.fromArray(FLOATS, w, wi);
      FloatVector w1 = FloatVector.fromArray(FLOATS, w, wi + COUNT);
      FloatVector x0 = FloatVector.broadcast(FLOATS, x[xi]);
      a0 = x0.fma(w0, a0);
      a1 = x0.fma(w1, a1);
      FloatVector x1 = FloatVector.broadcast(FLOATS, x[xi + 1]);
      b0 = x1.fma(w0, b0);
      b1 = x1.fma(w1, b1);
      FloatVector x2 = FloatVector.broadcast(FLOATS, x[xi + 2]);
      c0 = x2.fma(w0, c0);
      c1 = x2.fma(w1, c1);
      FloatVector x3 = FloatVector.broadcast(FLOATS, x[xi + 3]);
      d0 = x3.fma(w0, d0);
      d1 = x3.fma(w1, d1);
    }
    a0.intoArray(sums, at + 0 * COUNT);
    a1.intoArray(sums, at + 1 * COUNT);
    b0.intoArray(sums, at + 2 * COUNT);
    b1.intoArray(sums, at + 3 * COUNT);
    c0.intoArray(sums, at + 4 * COUNT);
    c1.intoArray(sums, at + 5 * COUNT);
    d0.intoArray(sums, at + 6 * COUNT);
    d1.intoArray(sums, at + 7 * COUNT);
  }

  private static void rows12(
      float[] x, int xAt, float[] w, int k, float[] sums, int at, boolean first) {
    FloatVector a0 = start(sums, at, 0, first);
    FloatVector a1 = start(sums, at, 1, first);
    FloatVector b0 = start(sums, at, 2, first);
    FloatVector b1 = start(sums, at, 3, first);
    FloatVector c0 = start(sums, at, 4, first);
    FloatVector c1 = start(sums, at, 5, first);
    FloatVector d0 = start(sums, at, 6, first);
    FloatVector d1 = start(sums, at, 7, first);
    FloatVector e0 = start(sums, at, 8, first);
    FloatVector e1 = start(sums, at, 9, first);
    FloatVector f0 = start(sums, at, 10, first);
    FloatVector f1 = start(sums, at, 11, first);
    FloatVector g0 = start(sums, at, 12, first);
    FloatVector g1 = start(sums, at, 13, first);
    FloatVector h0 = start(sums, at, 14, first);
    FloatVector h1 = start(sums, at, 15, first);
    FloatVector i0 = start(sums, at, 16, first);
    FloatVector i1 = start(sums, at, 17, first);
    FloatVector j0 = start(sums, at, 18, first);
    FloatVector j1 = start(sums, at, 19, first);
    FloatVector k0 = start(sums, at, 20, first);
    FloatVector k1 = start(sums, at, 21, first);
    FloatVector l0 = start(sums, at, 22, first);
    FloatVector l1 = start(sums, at, 23, first);
    for (int i = 0; i < k; i++) {
      int wi = i * WIDTH;
      int xi = xAt + i * 12;
      FloatVector w0 = FloatVector.fromArray(FLOATS, w, wi);
      FloatVector w1 = FloatVector.fromArray(FLOATS, w, wi + COUNT);
      FloatVector x0 = FloatVector.broadcast(FLOATS, x[xi]);
      a0 = x0.fma(w0, a0);
      a1 = x0.fma(w1, a1);
      FloatVector x1 = FloatVector.broadcast(FLOATS, x[xi + 1]);
      b0 = x1.fma(w0, b0);
      b1 = x1.fma(w1, b1);
      FloatVector x2 = FloatVector.broadcast(FLOATS, x[xi + 2]);
      c0 = x2.fma(w0, c0);
      c1 = x2.fma(w1, c1);
      FloatVector x3 = FloatVector.broadcast(FLOATS, x[xi + 3]);
      d0 = x3.fma(w0, d0);
      d1 = x3.fma(w1, d1);
      FloatVector x4 = FloatVector.broadcast(FLOATS, x[xi + 4]);
      e0 = x4.fma(w0, e0);
      e1 = x4.fma(w1, e1);
      FloatVector x5 = FloatVector.broadcast(FLOATS, x[xi + 5]);
      f0 = x5.fma(w0, f0);
      f1 = x5.fma(w1, f1);
      FloatVector x6 = FloatVector.broadcast(FLOATS, x[xi + 6]);
      g0 = x6.fma(w0, g0);
      g1 = x6.fma(w1, g1);
      FloatVector x7 = FloatVector.broadcast(FLOATS, x[xi + 7]);
      h0 = x7.fma(w0, h0);
      h1 = x7.fma(w1, h1);
      FloatVector x8 = FloatVector.broadcast(FLOATS, x[xi + 8]);
      i0 = x8.fma(w0, i0);
      i1 = x8.fma(w1, i1);
      FloatVector x9 = FloatVector.broadcast(FLOATS, x[xi + 9]);
      j0 = x9.fma(w0, j0);
      j1 = x9.fma(w1, j1);
      FloatVector x10 = FloatVector.broadcast(FLOATS, x[xi + 10]);
      k0 = x10.fma(w0, k0);
      k1 = x10.fma(w1, k1);
      FloatVector x11 = FloatVector.broadcast(FLOATS, x[xi + 11]);
      l0 = x11.fma(w0, l0);
      l1 = x11.fma(w1, l1);
    }
    a0.intoArray(sums, at + 0 * COUNT);
    a1.intoArray(sums, at + 1 * COUNT);
    b0.intoArray(sums, at + 2 * COUNT);
    b1.intoArray(sums, at + 3 * COUNT);
    c0.intoArray(sums, at + 4 * COUNT);
    c1.intoArray(sums, at + 5 * COUNT);
    d0.intoArray(sums, at + 6 * COUNT);
    d1.intoArray(sums, at + 7 * COUNT);
    e0.intoArray(sums, at + 8 * COUNT);
    e1.intoArray(sums, at + 9 * COUNT);
    f0.intoArray(sums, at + 10 * COUNT);
    f1.intoArray(sums, at + 11 * COUNT);
    g0.intoArray(sums, at + 12 * COUNT);
    g1.intoArray(sums, at + 13 * COUNT);
    h0.intoArray(sums, at + 14 * COUNT);
    h1.intoArray(sums, at + 15 * COUNT);
    i0.intoArray(sums, at + 16 * COUNT);
    i1.intoArray(sums, at + 17 * COUNT);
    j0.intoArray(sums, at + 18 * COUNT);
    j1.intoArray(sums, at + 19 * COUNT);
    k0.intoArray(sums, at + 20 * COUNT);
    k1.intoArray(sums, at + 21 * COUNT);
    l0.intoArray(sums, at + 22 * COUNT);
    l1.intoArray(sums, at + 23 * COUNT);
  }
}
