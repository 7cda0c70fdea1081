package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.codec.Codebooks;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.lang.foreign.ValueLayout;
import java.util.Optional;

/**
 * Scales of one byte that the library decodes in its own way: a table of 256 values stands for the
 * encoding, described as nested scales with a single scale of 1.
 */
final class ScaleTable {
  private ScaleTable() {}

  /** The matrix with its one-byte scales decoded by this table. */
  static Matrix decode(Matrix m, float[] table, SegmentAllocator memory) {
    MemorySegment values = memory.allocateFrom(ValueLayout.JAVA_FLOAT, table);
    MemorySegment one = memory.allocateFrom(ValueLayout.JAVA_FLOAT, 1f);
    MemorySegment codes = m.scales().orElseThrow().data();
    return m.toBuilder()
        .scales(new Matrix.Values(Encoding.U8, codes))
        .nested(Optional.of(new Matrix.Nested(values, one, Long.MAX_VALUE, 0f)))
        .build();
  }

  /** e4m3 scales each divided by one number, in F32. */
  static Matrix divided(Matrix m, float divisor, SegmentAllocator memory) {
    float[] table = Codebooks.table(Encoding.F8_E4M3);
    for (int i = 0; i < table.length; i++) {
      table[i] /= divisor;
    }
    return decode(m, table, memory);
  }

  /**
   * Powers of two of which code 0 is the number 0 and not 2^-127. Only a matrix that has such a
   * scale needs the table.
   */
  static Matrix zeroIsZero(Matrix m, SegmentAllocator memory) {
    if (!hasZero(m)) {
      return m;
    }
    float[] table = Codebooks.table(Encoding.F8_E8M0);
    table[0] = 0;
    return decode(m, table, memory);
  }

  private static boolean hasZero(Matrix m) {
    Granularity.Tile tile = (Granularity.Tile) m.granularity();
    MemorySegment codes = m.scales().orElseThrow().data();
    for (long row = 0; row < m.n(); row += tile.rows()) {
      for (long column = 0; column < m.k(); column += tile.cols()) {
        if (codes.get(ValueLayout.JAVA_BYTE, MatrixValues.scaleIndex(m, row, column)) == 0) {
          return true;
        }
      }
    }
    return false;
  }
}
