package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.COUNT;
import static dev.gatun.kernel.vector.Lanes.FLOATS;

import dev.gatun.Encoding;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.ScaleOrder;
import dev.gatun.kernel.codec.HalfFloat;
import jdk.incubator.vector.FloatVector;

/**
 * Rows of one matrix as floats, bit for bit as {@link MatrixValues#row} gives them. Not
 * thread-safe.
 */
final class Rows {
  /** Elements that are decoded at once. */
  static final int PIECE = 4096;

  private final Matrix m;
  private final boolean simple;
  private final float[] table;
  private final byte[] codes = new byte[PIECE];
  private final byte[] bytes = new byte[PIECE];
  final short[] halves = new short[PIECE];

  Rows(Matrix m) {
    this.m = m;
    simple = Forms.hasCodes(m) && m.rotation() <= 1 && m.k() <= Integer.MAX_VALUE;
    table = Forms.table(m);
  }

  /**
   * At most {@link #PIECE} elements of a row, {@code column ..}, into {@code out} from index 0 on.
   */
  void read(long row, long column, int count, float[] out) {
    if (!simple) {
      MatrixValues.row(m, row, column, count, out);
      return;
    }
    decode(row, (int) column, count, out);
    if (Forms.isBare(m)) {
      return;
    }
    runs(row, column, count, out, false);
    Lanes.round(m.arithmetic(), out, 0, count);
    if (m.scaleOrder() == ScaleOrder.THEN_GLOBAL) {
      Lanes.multiply(out, 0, count, HalfFloat.round(m.arithmetic(), m.globalScale()));
      Lanes.round(m.arithmetic(), out, 0, count);
    }
    if (m.rowScales().isPresent()) {
      Lanes.toWhole(out, 0, count);
      Lanes.multiply(out, 0, count, MatrixValues.rowScale(m, row));
      Lanes.round(m.result(), out, 0, count);
    }
    if (m.offsets().isPresent()) {
      runs(row, column, count, out, true);
      Lanes.round(m.arithmetic(), out, 0, count);
    }
    Lanes.round(m.result(), out, 0, count);
  }

  private void decode(long row, int column, int count, float[] out) {
    Encoding e = m.encoding();
    if (e.isPlain()) {
      long elements = m.codeRowStride() == 0 ? row * m.k() + column : column;
      Lanes.load(
          e,
          m.codeRowStride() == 0 ? m.codes() : m.codes().asSlice(row * m.codeRowStride()),
          elements,
          out,
          0,
          count,
          halves);
      return;
    }
    CodeRows.read(m, row, column, count, codes, bytes);
    if (table.length == 16) {
      CodeRows.lookup16(codes, count, table, out);
    } else if (Forms.isInteger(m)) {
      CodeRows.integers(codes, count, e == Encoding.I8, out);
    } else {
      CodeRows.lookup256(codes, count, table, out);
    }
  }

  /** Zero point and scale, or the offset, of each run of elements that share them. */
  private void runs(long row, long column, int count, float[] out, boolean offsets) {
    int done = 0;
    while (done < count) {
      long c = column + done;
      int end = done + (int) Math.min(count - done, MatrixValues.run(m, row, c));
      if (offsets) {
        add(out, done, end, MatrixValues.offset(m, row, c));
      } else {
        scale(out, done, end, MatrixValues.zero(m, row, c), MatrixValues.scale(m, row, c));
      }
      done = end;
    }
  }

  private static void scale(float[] a, int from, int to, float zero, float scale) {
    int i = from;
    for (int whole = from + FLOATS.loopBound(to - from); i < whole; i += COUNT) {
      FloatVector.fromArray(FLOATS, a, i).sub(zero).mul(scale).intoArray(a, i);
    }
    for (; i < to; i++) {
      a[i] = (a[i] - zero) * scale;
    }
  }

  private static void add(float[] a, int from, int to, float offset) {
    int i = from;
    for (int whole = from + FLOATS.loopBound(to - from); i < whole; i += COUNT) {
      FloatVector.fromArray(FLOATS, a, i).add(offset).intoArray(a, i);
    }
    for (; i < to; i++) {
      a[i] += offset;
    }
  }
}
