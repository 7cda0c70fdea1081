package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.COUNT;
import static dev.gatun.kernel.vector.Lanes.FLOATS;
import static dev.gatun.kernel.vector.Lanes.INTS;
import static dev.gatun.kernel.vector.Tiles.WIDTH;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.ScaleOrder;
import dev.gatun.kernel.codec.Hadamard;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Arrays;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;

/**
 * Some columns of one panel as floats, [k][WIDTH], ready to be multiplied: first what the codes
 * mean, then zero points, scales and offsets in the matrix's own arithmetic, one pass over the
 * block each. An integer multiply takes them in float instead, as its definition does. Has working
 * memory, so one for each thread.
 */
final class Decoder {
  private static final ByteOrder LITTLE = ByteOrder.LITTLE_ENDIAN;

  private final float[] row = new float[LinearRun.DEPTH];
  private final short[] halves = new short[LinearRun.DEPTH * WIDTH];
  private final float[] scale = new float[WIDTH];
  private final double[] turned = new double[LinearRun.DEPTH];

  /**
   * Decodes the columns {@code k0 .. k1-1} of a panel.
   *
   * @param k0 a multiple of {@link LinearRun#DEPTH}
   * @param k1 at most {@code k0} + {@link LinearRun#DEPTH}
   * @param out [DEPTH][WIDTH]
   */
  void decode(Panels p, int panel, int k0, int k1, Compute compute, float[] out) {
    int end = (k1 - k0) * WIDTH;
    if (p.form == Panels.Form.ROWS) {
      rows(p.matrix, panel, k0, k1 - k0, Forms.isInteger(compute), out);
    } else {
      boolean integer = Forms.isInteger(compute);
      codes(p, panel, k0, k1, integer ? p.integerTable : p.table, out);
      affine(p, panel, k0, k1, integer ? Encoding.F32 : p.matrix.arithmetic(), out);
      if (!integer) {
        if (p.matrix.rotation() > 1) {
          rotate(out, k1 - k0, p.matrix.rotation());
        }
      }
      // An integer multiply, too, takes blocks as the numbers that they dequantize to.
      if (!integer || p.matrix.encoding().isBlock()) {
        Lanes.round(p.matrix.result(), out, 0, end);
      }
    }
    if (compute == Compute.BF16) {
      Lanes.round(Encoding.BF16, out, 0, end);
    }
  }

  private void rows(Matrix m, int panel, int k0, int count, boolean integer, float[] out) {
    long first = (long) panel * WIDTH;
    int lanes = (int) Math.min(WIDTH, m.n() - first);
    Arrays.fill(out, 0, count * WIDTH, 0);
    for (int lane = 0; lane < lanes; lane++) {
      if (integer && Forms.hasCodes(m)) {
        integerRow(m, first + lane, k0, count);
      } else {
        MatrixValues.row(m, first + lane, k0, count, row);
      }
      for (int i = 0; i < count; i++) {
        out[i * WIDTH + lane] = row[i];
      }
    }
  }

  /** Part of a row as an integer multiply takes it. */
  private void integerRow(Matrix m, long n, int k0, int count) {
    for (int i = 0; i < count; i++) {
      int column = k0 + i;
      float code = Forms.integer(m, MatrixValues.decode(m, n, column));
      float value = (code - MatrixValues.zero(m, n, column)) * MatrixValues.scale(m, n, column);
      if (m.scaleOrder() == ScaleOrder.THEN_GLOBAL) {
        value *= m.globalScale();
      }
      if (m.rowScales().isPresent()) {
        value = MatrixValues.whole(value) * MatrixValues.rowScale(m, n);
      }
      row[i] = value + MatrixValues.offset(m, n, column);
    }
  }

  private void codes(Panels p, int panel, int k0, int k1, float[] table, float[] out) {
    long at = panel * p.panelBytes;
    if (p.form == Panels.Form.PLAIN) {
      plain(p, at, k0, (k1 - k0) * WIDTH, out);
      return;
    }
    Arrays.fill(scale, 1);
    int k = k0;
    while (k < k1) {
      int to = k1;
      if (p.scalesWithCodes && p.scales != null) {
        to = Math.min(k1, p.runEnd(k));
        MemorySegment.copy(p.scales, Lanes.FLOAT, parameter(p, panel, k), scale, 0, WIDTH);
      }
      int first = (k - k0) * WIDTH;
      switch (p.form) {
        case NIBBLES -> nibbles(p.codes, at + k / 8 * 4L * WIDTH, to - k, table, scale, out, first);
        case BYTES -> bytes(p, at + k * (long) WIDTH, to - k, table, scale, out, first);
        default -> integers(p, at + k * (long) WIDTH, to - k, scale, out, first);
      }
      k = to;
    }
  }

  private void plain(Panels p, long at, int k0, int count, float[] out) {
    Encoding type = p.matrix.encoding();
    int size = type.bits() / 8;
    long first = at / size + (long) k0 * WIDTH;
    Lanes.load(type, p.codes, first, out, 0, count, halves);
  }

  private static void nibbles(
      MemorySegment codes, long at, int k, float[] table, float[] scale, float[] out, int first) {
    if (!Nibbles.FAST) {
      for (int i = 0; i < k * WIDTH; i++) {
        long word = at + 4L * (i / WIDTH / 8 * WIDTH + i % WIDTH);
        float value = table[codes.get(Lanes.INT, word) >>> 4 * (i / WIDTH % 8) & 0xF];
        out[first + i] = value * scale[i % WIDTH];
      }
      return;
    }
    FloatVector scale0 = FloatVector.fromArray(FLOATS, scale, 0);
    FloatVector scale1 = FloatVector.fromArray(FLOATS, scale, COUNT);
    IntVector low = Nibbles.low(table);
    IntVector high = Nibbles.high(table);
    for (int i = 0; i < k; i += 8) {
      long word = at + i / 8 * 4L * WIDTH;
      IntVector a = IntVector.fromMemorySegment(INTS, codes, word, LITTLE);
      IntVector b = IntVector.fromMemorySegment(INTS, codes, word + 4 * COUNT, LITTLE);
      // The last word may hold fewer than 8; the block has room for all of them.
      for (int j = first + i * WIDTH; j < first + (i + 8) * WIDTH; j += WIDTH) {
        Nibbles.lookup(a, low, high).mul(scale0).intoArray(out, j);
        Nibbles.lookup(b, low, high).mul(scale1).intoArray(out, j + COUNT);
        a = a.lanewise(VectorOperators.LSHR, 4);
        b = b.lanewise(VectorOperators.LSHR, 4);
      }
    }
  }

  private static void integers(Panels p, long at, int k, float[] scale, float[] out, int first) {
    float zero = p.integerZero();
    if (Lanes.BYTES.length() != COUNT) {
      for (int i = 0; i < k * WIDTH; i++) {
        out[first + i] = (p.codes.get(ValueLayout.JAVA_BYTE, at + i) - zero) * scale[i % WIDTH];
      }
      return;
    }
    FloatVector scale0 = FloatVector.fromArray(FLOATS, scale, 0);
    FloatVector scale1 = FloatVector.fromArray(FLOATS, scale, COUNT);
    for (int i = 0; i < k * WIDTH; i += WIDTH) {
      FloatVector a =
          (FloatVector)
              ByteVector.fromMemorySegment(Lanes.BYTES, p.codes, at + i, LITTLE)
                  .castShape(FLOATS, 0);
      FloatVector b =
          (FloatVector)
              ByteVector.fromMemorySegment(Lanes.BYTES, p.codes, at + i + COUNT, LITTLE)
                  .castShape(FLOATS, 0);
      a.sub(zero).mul(scale0).intoArray(out, first + i);
      b.sub(zero).mul(scale1).intoArray(out, first + i + COUNT);
    }
  }

  private static void bytes(
      Panels p, long at, int k, float[] table, float[] scale, float[] out, int first) {
    ByteTable planes = p.byteTable;
    if (planes != null) {
      planes.lookup(p.codes, at, k, scale, out, first);
      return;
    }
    for (int i = 0; i < k; i++) {
      long word = at + i / 4 * 4L * WIDTH + i % 4;
      for (int lane = 0; lane < WIDTH; lane++) {
        byte code = p.codes.get(ValueLayout.JAVA_BYTE, word + 4L * lane);
        out[first + i * WIDTH + lane] = table[code & 0xFF] * scale[lane];
      }
    }
  }

  /** round(round((code - zero) · scale) + offset), each step where the matrix has it. */
  private static void affine(
      Panels p, int panel, int k0, int k1, Encoding arithmetic, float[] out) {
    int end = (k1 - k0) * WIDTH;
    if (p.zeros != null) {
      for (int k = k0; k < k1; k = Math.min(k1, p.runEnd(k))) {
        int to = Math.min(k1, p.runEnd(k)) - k0;
        subtract(out, k - k0, to, p.zeros, parameter(p, panel, k));
      }
    } else if (p.form == Panels.Form.PLAIN && p.matrix.zeroPoint() != 0) {
      Lanes.subtract(out, 0, end, p.matrix.zeroPoint());
    }
    if (p.scales != null && !p.scalesWithCodes) {
      for (int k = k0; k < k1; k = Math.min(k1, p.runEnd(k))) {
        int to = Math.min(k1, p.runEnd(k)) - k0;
        multiply(out, k - k0, to, p.scales, parameter(p, panel, k));
      }
    }
    Lanes.round(arithmetic, out, 0, end);
    if (p.rowScales != null) {
      Lanes.toWhole(out, 0, end);
      multiply(out, 0, k1 - k0, p.rowScales, 4L * panel * WIDTH);
      Lanes.round(p.matrix.result(), out, 0, end);
    }
    if (p.offsets != null) {
      for (int k = k0; k < k1; k = Math.min(k1, p.runEnd(k))) {
        int to = Math.min(k1, p.runEnd(k)) - k0;
        add(out, k - k0, to, p.offsets, parameter(p, panel, k));
      }
      Lanes.round(arithmetic, out, 0, end);
    }
  }

  /** The byte at which the parameters of a column begin. */
  private static long parameter(Panels p, int panel, int k) {
    return 4 * ((long) panel * p.groups + p.groupOf(k)) * WIDTH;
  }

  private static void subtract(float[] a, int from, int to, MemorySegment values, long at) {
    FloatVector v0 = FloatVector.fromMemorySegment(FLOATS, values, at, LITTLE);
    FloatVector v1 = FloatVector.fromMemorySegment(FLOATS, values, at + 4 * COUNT, LITTLE);
    for (int i = from * WIDTH; i < to * WIDTH; i += WIDTH) {
      FloatVector.fromArray(FLOATS, a, i).sub(v0).intoArray(a, i);
      FloatVector.fromArray(FLOATS, a, i + COUNT).sub(v1).intoArray(a, i + COUNT);
    }
  }

  private static void multiply(float[] a, int from, int to, MemorySegment values, long at) {
    FloatVector v0 = FloatVector.fromMemorySegment(FLOATS, values, at, LITTLE);
    FloatVector v1 = FloatVector.fromMemorySegment(FLOATS, values, at + 4 * COUNT, LITTLE);
    for (int i = from * WIDTH; i < to * WIDTH; i += WIDTH) {
      FloatVector.fromArray(FLOATS, a, i).mul(v0).intoArray(a, i);
      FloatVector.fromArray(FLOATS, a, i + COUNT).mul(v1).intoArray(a, i + COUNT);
    }
  }

  private static void add(float[] a, int from, int to, MemorySegment values, long at) {
    FloatVector v0 = FloatVector.fromMemorySegment(FLOATS, values, at, LITTLE);
    FloatVector v1 = FloatVector.fromMemorySegment(FLOATS, values, at + 4 * COUNT, LITTLE);
    for (int i = from * WIDTH; i < to * WIDTH; i += WIDTH) {
      FloatVector.fromArray(FLOATS, a, i).add(v0).intoArray(a, i);
      FloatVector.fromArray(FLOATS, a, i + COUNT).add(v1).intoArray(a, i + COUNT);
    }
  }

  /**
   * Each run of {@code size} columns times the Hadamard matrix, in double as the definition does.
   */
  private void rotate(float[] a, int count, int size) {
    for (int lane = 0; lane < WIDTH; lane++) {
      for (int i = 0; i < count; i++) {
        turned[i] = a[i * WIDTH + lane];
      }
      for (int i = 0; i < count; i += size) {
        Hadamard.apply(turned, i, size);
      }
      for (int i = 0; i < count; i++) {
        a[i * WIDTH + lane] = (float) turned[i];
      }
    }
  }
}
