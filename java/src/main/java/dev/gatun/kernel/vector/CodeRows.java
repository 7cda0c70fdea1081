package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.BYTES;
import static dev.gatun.kernel.vector.Lanes.COUNT;
import static dev.gatun.kernel.vector.Lanes.INTS;

import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;

/** The codes of a row, one unsigned code a byte, and what they mean as floats. */
final class CodeRows {
  // Plain Java, which is fast before it is compiled: packing is often the first thing done.
  private static final VarHandle WORDS =
      MethodHandles.byteArrayViewVarHandle(int[].class, ByteOrder.LITTLE_ENDIAN);
  private static final VarHandle LONGS =
      MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

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
    boolean highFirst = m.codeOrder() == CodeOrder.HIGH_FIRST;
    int i = 0;
    for (; i + 4 <= count / 2; i += 4) {
      LONGS.set(out, 2 * i, spread((int) WORDS.get(bytes, i), highFirst));
    }
    int low = highFirst ? 4 : 0;
    for (; i < size; i++) {
      out[2 * i] = (byte) (bytes[i] >>> low & 0xF);
      if (2 * i + 1 < count) {
        out[2 * i + 1] = (byte) (bytes[i] >>> 4 - low & 0xF);
      }
    }
  }

  /** Eight codes of four bits, each in a byte of its own. */
  private static long spread(int word, boolean highFirst) {
    long x = word & 0xFFFFFFFFL;
    x = (x | x << 16) & 0x0000FFFF0000FFFFL;
    x = (x | x << 8) & 0x00FF00FF00FF00FFL;
    x = (x | x << 4) & 0x0F0F0F0F0F0F0F0FL;
    return highFirst ? (x & 0x00FF00FF00FF00FFL) << 8 | x >>> 8 & 0x00FF00FF00FF00FFL : x;
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
