package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.GgufBlocks;
import dev.gatun.kernel.codec.Hadamard;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * The numbers of a {@link Matrix}, exactly as its definition says. The matrix has been checked
 * before.
 */
public final class MatrixValues {
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private MatrixValues() {}

  /** The unsigned code of an element of 1 to 8 bits. */
  public static int code(Matrix m, long row, long column) {
    return Codes.get(m, row, column);
  }

  /** Stores the unsigned code of an element of 1 to 8 bits; other bits of its bytes are kept. */
  public static void putCode(Matrix m, long row, long column, int code) {
    Codes.put(m, row, column, code);
  }

  /** The code as a number, before zero point and scale; not for self-contained blocks. */
  public static float decode(Matrix m, long row, long column) {
    if (!m.encoding().isPlain()) {
      int code = Codes.get(m, row, column);
      return m.codebook().isPresent()
          ? Numbers.get(Encoding.F32, m.codebook().get(), code)
          : Codebooks.decode(m.encoding(), code);
    }
    if (m.codeRowStride() == 0) {
      return Numbers.get(m.encoding(), m.codes(), row * m.k() + column);
    }
    // Rows need not be a whole number of elements apart.
    return Numbers.get(m.encoding(), m.codes().asSlice(row * m.codeRowStride()), column);
  }

  /**
   * The index of the element's zero point and offset, and of its scale unless those are blocked.
   */
  public static long index(Matrix m, long row, long column) {
    if (m.columnGroups().isPresent() && m.granularity() instanceof Granularity.Tile t) {
      return row / t.rows() * t.rowStride() + group(m, column) * t.colStride();
    }
    return m.granularity().index(row, column, m.k());
  }

  private static int group(Matrix m, long column) {
    return m.columnGroups().orElseThrow().get(INT, 4 * column);
  }

  /** The index of the element's scale. */
  public static long scaleIndex(Matrix m, long row, long column) {
    if (m.scaleOrder() != ScaleOrder.BLOCKED_128X4
        || !(m.granularity() instanceof Granularity.Tile tile)) {
      return index(m, row, column);
    }
    long r = row / tile.rows();
    long c = column / tile.cols();
    long tilesAcross = Math.ceilDiv(Math.ceilDiv(m.k(), tile.cols()), 4L);
    return (r / 128 * tilesAcross + c / 4) * 512 + r % 32 * 16 + r % 128 / 32 * 4 + c % 4;
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
    long index = scaleIndex(m, row, column);
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
   * arithmetic}, then their product; without the global scale when that comes after it.
   */
  public static float scale(Matrix m, long row, long column) {
    float stored = HalfFloat.round(m.arithmetic(), storedScale(m, row, column));
    if (m.globalScale() == 1f || m.scaleOrder() == ScaleOrder.THEN_GLOBAL) {
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
    return Numbers.get(zeros.type(), zeros.data(), index(m, row, column));
  }

  /** What is added after scaling, with its sign; 0 when there are no offsets. */
  public static float offset(Matrix m, long row, long column) {
    if (m.offsets().isEmpty()) {
      return 0f;
    }
    Matrix.Values offsets = m.offsets().get();
    float value = Numbers.get(offsets.type(), offsets.data(), index(m, row, column));
    return m.offsetsSubtracted() ? -value : value;
  }

  /** The scale of the row's rounded products; 1 when there is none. */
  public static float rowScale(Matrix m, long row) {
    return m.rowScales().isPresent() ? Numbers.get(Encoding.F32, m.rowScales().get(), row) : 1f;
  }

  /** The element's number, rounded to {@code result}. */
  public static float weight(Matrix m, long row, long column) {
    float[] one = new float[1];
    row(m, row, column, 1, one);
    return one[0];
  }

  /** The number before rotation and the rounding to {@code result}. */
  private static float value(
      Matrix m, float code, float zero, float scale, float offset, float rowScale) {
    float value = HalfFloat.round(m.arithmetic(), (code - zero) * scale);
    if (m.scaleOrder() == ScaleOrder.THEN_GLOBAL) {
      value =
          HalfFloat.round(m.arithmetic(), value * HalfFloat.round(m.arithmetic(), m.globalScale()));
    }
    if (m.rowScales().isPresent()) {
      value = HalfFloat.round(m.result(), whole(value) * rowScale);
    }
    if (m.offsets().isPresent()) {
      value = HalfFloat.round(m.arithmetic(), value + offset);
    }
    return value;
  }

  /** A product to the nearest integer of -127..127, as row scales take it; NaN stays. */
  public static float whole(float product) {
    return Float.isNaN(product) ? product : Math.clamp((float) Math.rint(product), -127f, 127f);
  }

  /**
   * Elements {@code column .. column+count-1} of a row into {@code out}, as {@link #weight} gives
   * them.
   */
  public static void row(Matrix m, long row, long column, int count, float[] out) {
    if (m.encoding().isBlock()) {
      blocks(m, row, column, count, out);
    } else if (m.rotation() > 1) {
      rotated(m, row, column, count, out);
    } else {
      values(m, row, column, count, out);
    }
    if (m.result() != Encoding.F32) {
      for (int i = 0; i < count; i++) {
        out[i] = HalfFloat.round(m.result(), out[i]);
      }
    }
  }

  private static void values(Matrix m, long row, long column, int count, float[] out) {
    float rowScale = rowScale(m, row);
    int done = 0;
    while (done < count) {
      long c = column + done;
      int end = done + (int) Math.min(count - done, run(m, row, c));
      float zero = zero(m, row, c);
      float scale = scale(m, row, c);
      float offset = offset(m, row, c);
      for (int i = done; i < end; i++) {
        out[i] = value(m, decode(m, row, column + i), zero, scale, offset, rowScale);
      }
      done = end;
    }
  }

  private static void rotated(Matrix m, long row, long column, int count, float[] out) {
    int size = m.rotation();
    float[] piece = new float[size];
    int done = 0;
    while (done < count) {
      long start = (column + done) / size * size;
      int skip = (int) (column + done - start);
      int take = Math.min(count - done, size - skip);
      values(m, row, start, size, piece);
      Hadamard.apply(piece, 0, size);
      System.arraycopy(piece, skip, out, done, take);
      done += take;
    }
  }

  private static void blocks(Matrix m, long row, long column, int count, float[] out) {
    int size = m.encoding().blockElements();
    float[] block = new float[size];
    int done = 0;
    while (done < count) {
      int skip = (int) ((column + done) % size);
      int take = Math.min(count - done, size - skip);
      GgufBlocks.decode(m.encoding(), m.codes(), Codes.block(m, row, column + done), block);
      System.arraycopy(block, skip, out, done, take);
      done += take;
    }
    if (m.globalScale() != 1f) {
      for (int i = 0; i < count; i++) {
        out[i] *= m.globalScale();
      }
    }
  }

  /** How many elements of the row from this one on share its scale. */
  public static long run(Matrix m, long row, long column) {
    if (m.columnGroups().isPresent()) {
      long end = column + 1;
      while (end < m.k() && group(m, end) == group(m, column)) {
        end++;
      }
      return end - column;
    }
    return switch (m.granularity()) {
      case Granularity.Tile t -> t.cols() - column % t.cols();
      case Granularity.Flat f -> f.block() - (row * m.k() + column) % f.block();
    };
  }

  /** The largest and smallest scale column that the column groups name. */
  static long[] groupRange(MemorySegment groups, long k) {
    long smallest = Long.MAX_VALUE;
    long largest = Long.MIN_VALUE;
    for (long i = 0; i < k; i++) {
      int group = groups.get(INT, 4 * i);
      smallest = Math.min(smallest, group);
      largest = Math.max(largest, group);
    }
    return new long[] {smallest, largest};
  }
}
