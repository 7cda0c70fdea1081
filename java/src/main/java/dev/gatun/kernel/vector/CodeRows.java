package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.BYTES;
import static dev.gatun.kernel.vector.Lanes.COUNT;
import static dev.gatun.kernel.vector.Lanes.INTS;

import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/** The codes of a row, one unsigned code a byte, and what they mean as floats. */
final class CodeRows {
  private static final VectorSpecies<Short> WIDE =
      VectorSpecies.of(short.class, Lanes.FLOATS.vectorShape());
  private static final VectorSpecies<Byte> HALF =
      VectorSpecies.of(
          byte.class, VectorShape.forBitSize(Math.max(64, Lanes.FLOATS.vectorBitSize() / 2)));

  private CodeRows() {}

  /**
   * Codes {@code column .. column+count-1} of a row of 1 to 8 bits; {@code bytes} is working
   * memory.
   */
  static void read(Matrix m, long row, int column, int count, byte[] out, byte[] bytes) {
    long first = first(m, row, column);
    if (first < 0) {
      for (int i = 0; i < count; i++) {
        out[i] = (byte) MatrixValues.code(m, row, column + i);
      }
      return;
    }
    if (m.encoding().bits() == 8) {
      MemorySegment.copy(m.codes(), ValueLayout.JAVA_BYTE, first, out, 0, count);
      return;
    }
    int size = (count + 1) / 2;
    MemorySegment.copy(m.codes(), ValueLayout.JAVA_BYTE, first, bytes, 0, size);
    int low = m.codeOrder() == CodeOrder.HIGH_FIRST ? 4 : 0;
    int i = 0;
    int step = WIDE.length();
    if (HALF.length() == step) {
      for (; i + step <= count / 2; i += step) {
        ShortVector b =
            (ShortVector)
                ByteVector.fromArray(HALF, bytes, i)
                    .convertShape(VectorOperators.ZERO_EXTEND_B2S, WIDE, 0);
        // The low byte of each short is the first code.
        b.lanewise(VectorOperators.LSHR, low)
            .and((short) 0xF)
            .or(b.lanewise(VectorOperators.LSHL, 4 + low).and((short) 0xF00))
            .reinterpretAsBytes()
            .intoArray(out, 2 * i);
      }
    }
    for (; i < size; i++) {
      out[2 * i] = (byte) (bytes[i] >>> low & 0xF);
      if (2 * i + 1 < count) {
        out[2 * i + 1] = (byte) (bytes[i] >>> 4 - low & 0xF);
      }
    }
  }

  /** The byte in which the codes of the row go on from this column, in order; -1: they do not. */
  private static long first(Matrix m, long row, int column) {
    int bits = m.encoding().bits();
    boolean inOrder = m.codeOrder() == CodeOrder.LOW_FIRST || m.codeOrder() == CodeOrder.HIGH_FIRST;
    if ((bits != 8 && bits != 4) || !inOrder) {
      return -1;
    }
    long element = m.codeRowStride() == 0 ? row * m.k() + column : column;
    long start = m.codeRowStride() == 0 ? 0 : row * m.codeRowStride();
    return bits == 8 ? start + element : (element & 1) == 0 ? start + element / 2 : -1;
  }

  /** {@code out[i] = table[codes[i]]} with a table of 16. */
  static void lookup16(byte[] codes, int count, float[] table, float[] out) {
    int i = 0;
    if (Nibbles.FAST) {
      IntVector low = Nibbles.low(table);
      IntVector high = Nibbles.high(table);
      for (; i + BYTES.length() <= count; i += COUNT) {
        IntVector code =
            (IntVector)
                ByteVector.fromArray(BYTES, codes, i)
                    .convertShape(VectorOperators.ZERO_EXTEND_B2I, INTS, 0);
        Nibbles.lookup(code, low, high).intoArray(out, i);
      }
    }
    for (; i < count; i++) {
      out[i] = table[codes[i]];
    }
  }

  /** {@code out[i] = table[codes[i]]} with a table of 256. */
  static void lookup256(byte[] codes, int count, float[] table, float[] out) {
    for (int i = 0; i < count; i++) {
      out[i] = table[codes[i] & 0xFF];
    }
  }

  /** Bytes as integers, two's complement or not. */
  static void integers(byte[] codes, int count, boolean signed, float[] out) {
    if (signed) {
      for (int i = 0; i < count; i++) {
        out[i] = codes[i];
      }
    } else {
      for (int i = 0; i < count; i++) {
        out[i] = codes[i] & 0xFF;
      }
    }
  }
}
