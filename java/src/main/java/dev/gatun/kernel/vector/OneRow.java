package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.BYTES;
import static dev.gatun.kernel.vector.Lanes.COUNT;
import static dev.gatun.kernel.vector.Lanes.FLOATS;
import static dev.gatun.kernel.vector.Lanes.INTS;
import static dev.gatun.kernel.vector.Tiles.WIDTH;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;
import org.jspecify.annotations.Nullable;

/**
 * One row of x times one panel, decoded on the way: Σ over groups of scale · Σ (code - zero) · x.
 * Codes are read once and never stored as floats. Each group has four chains of sums for each half
 * of the panel, since one would wait for itself.
 *
 * <p>The loops call the Vector API directly: once much has been inlined into a method the compiler
 * takes no more helpers into it, and a vector that a call returns is a heap object.
 */
final class OneRow {
  private static final ByteOrder LITTLE = ByteOrder.LITTLE_ENDIAN;

  private OneRow() {}

  /** Whether the weight's codes can be multiplied as they are: only float scales follow. */
  static boolean takes(Panels p, Compute compute) {
    Matrix m = p.matrix;
    boolean integer = Forms.isInteger(compute);
    boolean unrounded =
        (integer && !m.encoding().isBlock())
            || (m.arithmetic() == Encoding.F32 && m.result() == Encoding.F32);
    boolean exact = integer || (compute == Compute.F32 && m.rotation() <= 1);
    boolean plain =
        p.scales != null && p.offsets == null && p.rowScales == null && p.columnGroups == null;
    return exact && unrounded && plain && p.group % 8 == 0 && p.k % 8 == 0 && hasLoop(p);
  }

  private static boolean hasLoop(Panels p) {
    return switch (p.form) {
      case NIBBLES -> COUNT == 16;
      case INTEGERS -> BYTES.length() == COUNT && p.zeros == null && p.integerZero() == 0;
      case PLAIN, BYTES, ROWS -> false;
    };
  }

  /** {@code sums[j] = Σ x[k] · w[k][j]}. */
  static void multiply(
      Panels p,
      int panel,
      MemorySegment scales,
      Compute compute,
      float[] x,
      float[] sums,
      int start) {
    float[] table = Forms.isInteger(compute) ? p.integerTable : p.table;
    if (p.form == Panels.Form.INTEGERS) {
      integers(p, panel, scales, x, sums, start);
    } else {
      nibbles(p, panel, table, scales, p.zeros, x, sums, start);
    }
  }

  /** The byte at which the parameters of a group begin. */
  private static long parameter(Panels p, int panel, int group) {
    return 4 * ((long) panel * p.groups + group) * WIDTH;
  }

  /**
   * A vector of words holds eight k of as many outputs; half of them are taken, then the other
   * half.
   *
   * @param zeros a zero point for each group and output, or null: the loop is compiled for either
   */
  private static void nibbles(
      Panels p,
      int panel,
      float[] table,
      MemorySegment scales,
      @Nullable MemorySegment zeros,
      float[] x,
      float[] sums,
      int start) {
    IntVector values = FloatVector.fromArray(FLOATS, table, 0).reinterpretAsInts();
    long codes = panel * p.panelBytes;
    FloatVector total0 = FloatVector.zero(FLOATS);
    FloatVector total1 = total0;
    for (int group = 0; group < p.groups; group++) {
      long at = parameter(p, panel, group);
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector a1 = a0;
      FloatVector b0 = a0;
      FloatVector b1 = a0;
      FloatVector c0 = a0;
      FloatVector c1 = a0;
      FloatVector d0 = a0;
      FloatVector d1 = a0;
      FloatVector zero0 = a0;
      FloatVector zero1 = a0;
      if (zeros != null) {
        zero0 = FloatVector.fromMemorySegment(FLOATS, zeros, at, LITTLE);
        zero1 = FloatVector.fromMemorySegment(FLOATS, zeros, at + 4 * COUNT, LITTLE);
      }
      int end = Math.min(p.k, (group + 1) * p.group);
      for (int k = group * p.group; k < end; k += 8) {
        long word = codes + k / 8 * 4L * WIDTH;
        IntVector words0 = IntVector.fromMemorySegment(INTS, p.codes, word, LITTLE);
        IntVector words1 = IntVector.fromMemorySegment(INTS, p.codes, word + 4 * COUNT, LITTLE);
        for (int i = k; i < k + 8; i += 4) {
          FloatVector x0 = FloatVector.broadcast(FLOATS, x[i]);
          FloatVector aw0 = words0.selectFrom(values).reinterpretAsFloats();
          FloatVector aw1 = words1.selectFrom(values).reinterpretAsFloats();
          a0 = (zeros == null ? aw0 : aw0.sub(zero0)).fma(x0, a0);
          a1 = (zeros == null ? aw1 : aw1.sub(zero1)).fma(x0, a1);
          FloatVector x1 = FloatVector.broadcast(FLOATS, x[i + 1]);
          FloatVector bw0 =
              words0.lanewise(VectorOperators.LSHR, 4).selectFrom(values).reinterpretAsFloats();
          FloatVector bw1 =
              words1.lanewise(VectorOperators.LSHR, 4).selectFrom(values).reinterpretAsFloats();
          b0 = (zeros == null ? bw0 : bw0.sub(zero0)).fma(x1, b0);
          b1 = (zeros == null ? bw1 : bw1.sub(zero1)).fma(x1, b1);
          FloatVector x2 = FloatVector.broadcast(FLOATS, x[i + 2]);
          FloatVector cw0 =
              words0.lanewise(VectorOperators.LSHR, 8).selectFrom(values).reinterpretAsFloats();
          FloatVector cw1 =
              words1.lanewise(VectorOperators.LSHR, 8).selectFrom(values).reinterpretAsFloats();
          c0 = (zeros == null ? cw0 : cw0.sub(zero0)).fma(x2, c0);
          c1 = (zeros == null ? cw1 : cw1.sub(zero1)).fma(x2, c1);
          FloatVector x3 = FloatVector.broadcast(FLOATS, x[i + 3]);
          FloatVector dw0 =
              words0.lanewise(VectorOperators.LSHR, 12).selectFrom(values).reinterpretAsFloats();
          FloatVector dw1 =
              words1.lanewise(VectorOperators.LSHR, 12).selectFrom(values).reinterpretAsFloats();
          d0 = (zeros == null ? dw0 : dw0.sub(zero0)).fma(x3, d0);
          d1 = (zeros == null ? dw1 : dw1.sub(zero1)).fma(x3, d1);
          words0 = words0.lanewise(VectorOperators.LSHR, 16);
          words1 = words1.lanewise(VectorOperators.LSHR, 16);
        }
      }
      FloatVector sum0 = a0.add(b0).add(c0.add(d0));
      FloatVector sum1 = a1.add(b1).add(c1.add(d1));
      total0 = sum0.fma(FloatVector.fromMemorySegment(FLOATS, scales, at, LITTLE), total0);
      total1 =
          sum1.fma(FloatVector.fromMemorySegment(FLOATS, scales, at + 4 * COUNT, LITTLE), total1);
    }
    total0.intoArray(sums, start);
    total1.intoArray(sums, start + COUNT);
  }

  /** A vector of bytes holds one k. */
  private static void integers(
      Panels p, int panel, MemorySegment scales, float[] x, float[] sums, int start) {
    long first = panel * p.panelBytes;
    FloatVector total0 = FloatVector.zero(FLOATS);
    FloatVector total1 = total0;
    for (int group = 0; group < p.groups; group++) {
      long at = parameter(p, panel, group);
      FloatVector a0 = FloatVector.zero(FLOATS);
      FloatVector a1 = a0;
      FloatVector b0 = a0;
      FloatVector b1 = a0;
      FloatVector c0 = a0;
      FloatVector c1 = a0;
      FloatVector d0 = a0;
      FloatVector d1 = a0;
      int end = Math.min(p.k, (group + 1) * p.group);
      for (int k = group * p.group; k < end; k += 4) {
        long codes = first + k * (long) WIDTH;
        FloatVector x0 = FloatVector.broadcast(FLOATS, x[k]);
        a0 =
            ((FloatVector)
                    ByteVector.fromMemorySegment(BYTES, p.codes, codes, LITTLE)
                        .castShape(FLOATS, 0))
                .fma(x0, a0);
        a1 =
            ((FloatVector)
                    ByteVector.fromMemorySegment(BYTES, p.codes, codes + COUNT, LITTLE)
                        .castShape(FLOATS, 0))
                .fma(x0, a1);
        FloatVector x1 = FloatVector.broadcast(FLOATS, x[k + 1]);
        b0 =
            ((FloatVector)
                    ByteVector.fromMemorySegment(BYTES, p.codes, codes + 1 * WIDTH, LITTLE)
                        .castShape(FLOATS, 0))
                .fma(x1, b0);
        b1 =
            ((FloatVector)
                    ByteVector.fromMemorySegment(BYTES, p.codes, codes + 1 * WIDTH + COUNT, LITTLE)
                        .castShape(FLOATS, 0))
                .fma(x1, b1);
        FloatVector x2 = FloatVector.broadcast(FLOATS, x[k + 2]);
        c0 =
            ((FloatVector)
                    ByteVector.fromMemorySegment(BYTES, p.codes, codes + 2 * WIDTH, LITTLE)
                        .castShape(FLOATS, 0))
                .fma(x2, c0);
        c1 =
            ((FloatVector)
                    ByteVector.fromMemorySegment(BYTES, p.codes, codes + 2 * WIDTH + COUNT, LITTLE)
                        .castShape(FLOATS, 0))
                .fma(x2, c1);
        FloatVector x3 = FloatVector.broadcast(FLOATS, x[k + 3]);
        d0 =
            ((FloatVector)
                    ByteVector.fromMemorySegment(BYTES, p.codes, codes + 3 * WIDTH, LITTLE)
                        .castShape(FLOATS, 0))
                .fma(x3, d0);
        d1 =
            ((FloatVector)
                    ByteVector.fromMemorySegment(BYTES, p.codes, codes + 3 * WIDTH + COUNT, LITTLE)
                        .castShape(FLOATS, 0))
                .fma(x3, d1);
      }
      FloatVector sum0 = a0.add(b0).add(c0.add(d0));
      FloatVector sum1 = a1.add(b1).add(c1.add(d1));
      total0 = sum0.fma(FloatVector.fromMemorySegment(FLOATS, scales, at, LITTLE), total0);
      total1 =
          sum1.fma(FloatVector.fromMemorySegment(FLOATS, scales, at + 4 * COUNT, LITTLE), total1);
    }
    total0.intoArray(sums, start);
    total1.intoArray(sums, start + COUNT);
  }
}
