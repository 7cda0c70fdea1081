package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * The numbers of a {@link Matrix}, exactly as its definition says. The matrix has been checked
 * before.
 */
public final class MatrixValues {
  private MatrixValues() {}

  /** The unsigned code of an element of 4 or 8 bits. */
  public static int code(Matrix m, long row, long column) {
    MemorySegment codes = m.codes();
    if (m.encoding().bits() == 8) {
      long at = m.codeRowStride() == 0 ? row * m.k() + column : row * m.codeRowStride() + column;
      return codes.get(ValueLayout.JAVA_BYTE, at) & 0xFF;
    }
    long element = m.codeRowStride() == 0 ? row * m.k() + column : column;
    long at = m.codeRowStride() == 0 ? element >> 1 : row * m.codeRowStride() + (element >> 1);
    return codes.get(ValueLayout.JAVA_BYTE, at) >>> shift(m, element) & 0xF;
  }

  /**
   * Stores the unsigned code of an element of 4 or 8 bits; the other nibble of its byte is kept.
   */
  public static void putCode(Matrix m, long row, long column, int code) {
    MemorySegment codes = m.codes();
    if (m.encoding().bits() == 8) {
      long at = m.codeRowStride() == 0 ? row * m.k() + column : row * m.codeRowStride() + column;
      codes.set(ValueLayout.JAVA_BYTE, at, (byte) code);
      return;
    }
    long element = m.codeRowStride() == 0 ? row * m.k() + column : column;
    long at = m.codeRowStride() == 0 ? element >> 1 : row * m.codeRowStride() + (element >> 1);
    int shift = shift(m, element);
    int old = codes.get(ValueLayout.JAVA_BYTE, at);
    codes.set(ValueLayout.JAVA_BYTE, at, (byte) (old & ~(0xF << shift) | code << shift));
  }

  private static int shift(Matrix m, long element) {
    return (element & 1) == 0 == m.highNibbleFirst() ? 4 : 0;
  }

  /** The code as a number, before zero point and scale. */
  public static float decode(Matrix m, long row, long column) {
    if (!m.encoding().isPlain()) {
      return Codebooks.decode(m.encoding(), code(m, row, column));
    }
    if (m.codeRowStride() == 0) {
      return Numbers.get(m.encoding(), m.codes(), row * m.k() + column);
    }
    // Rows need not be a whole number of elements apart.
    return Numbers.get(m.encoding(), m.codes().asSlice(row * m.codeRowStride()), column);
  }

  /**
   * The scale as it is stored, nested ones resolved; the global scale is not in it. 1 when there is
   * none.
   */
  public static float storedScale(Matrix m, long row, long column) {
    if (m.scales().isEmpty()) {
      return 1f;
    }
    Matrix.Values scales = m.scales().get();
    long index = m.granularity().index(row, column, m.k());
    float value = Numbers.get(scales.type(), scales.data(), index);
    if (m.nested().isEmpty()) {
      return value;
    }
    Matrix.Nested nested = m.nested().get();
    float product =
        Numbers.get(Encoding.F32, nested.codebook(), (long) value)
            * Numbers.get(Encoding.F32, nested.scales(), index / nested.block());
    return product + nested.offset();
  }

  /**
   * The scale that the element is multiplied by: stored and global scale each rounded to {@code
   * arithmetic}, then their product.
   */
  public static float scale(Matrix m, long row, long column) {
    float stored = HalfFloat.round(m.arithmetic(), storedScale(m, row, column));
    if (m.globalScale() == 1f) {
      return stored;
    }
    return HalfFloat.round(
        m.arithmetic(), stored * HalfFloat.round(m.arithmetic(), m.globalScale()));
  }

  /** What is subtracted from the element's code. */
  public static float zero(Matrix m, long row, long column) {
    if (m.zeros().isEmpty()) {
      return m.zeroPoint();
    }
    Matrix.Values zeros = m.zeros().get();
    return Numbers.get(zeros.type(), zeros.data(), m.granularity().index(row, column, m.k()));
  }

  /** What is added after scaling, with its sign; 0 when there are no offsets. */
  public static float offset(Matrix m, long row, long column) {
    if (m.offsets().isEmpty()) {
      return 0f;
    }
    Matrix.Values offsets = m.offsets().get();
    float value =
        Numbers.get(offsets.type(), offsets.data(), m.granularity().index(row, column, m.k()));
    return m.offsetsSubtracted() ? -value : value;
  }

  /** The element's number, rounded to {@code result}. */
  public static float weight(Matrix m, long row, long column) {
    return finish(
        m,
        decode(m, row, column),
        zero(m, row, column),
        scale(m, row, column),
        offset(m, row, column));
  }

  private static float finish(Matrix m, float code, float zero, float scale, float offset) {
    float value = HalfFloat.round(m.arithmetic(), (code - zero) * scale);
    if (m.offsets().isPresent()) {
      value = HalfFloat.round(m.arithmetic(), value + offset);
    }
    return HalfFloat.round(m.result(), value);
  }

  /**
   * Elements {@code column .. column+count-1} of a row into {@code out}, as {@link #weight} gives
   * them.
   */
  public static void row(Matrix m, long row, long column, int count, float[] out) {
    int done = 0;
    while (done < count) {
      long c = column + done;
      int end = done + (int) Math.min(count - done, run(m, row, c));
      float zero = zero(m, row, c);
      float scale = scale(m, row, c);
      float offset = offset(m, row, c);
      for (int i = done; i < end; i++) {
        out[i] = finish(m, decode(m, row, column + i), zero, scale, offset);
      }
      done = end;
    }
  }

  /** How many elements of the row from this one on share its scale. */
  static long run(Matrix m, long row, long column) {
    return switch (m.granularity()) {
      case Granularity.Tile t -> t.cols() - column % t.cols();
      case Granularity.Flat f -> f.block() - (row * m.k() + column) % f.block();
    };
  }
}
