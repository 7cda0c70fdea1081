package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.GgufCodes;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.Objects;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Fills a matrix with levels, scales and offsets: number = level · scale + offset. What the matrix
 * cannot hold as it is, it does not take. Not thread-safe.
 */
final class LevelWriter {
  private final Matrix m;
  private final @Nullable GgufCodes blocks;

  /** The levels that there are, rising, and the code of each. */
  private final float[] levels;

  private final int[] codes;

  /** The scales, and with them the offsets, that have been stored. */
  private final BitSet stored = new BitSet();

  private LevelWriter(Matrix m, @Nullable GgufCodes blocks, float[] byCode) {
    this.m = m;
    this.blocks = blocks;
    int[] order =
        IntStream.range(0, byCode.length)
            .boxed()
            .sorted(Comparator.comparingDouble((Integer code) -> byCode[code]))
            .mapToInt(Integer::intValue)
            .toArray();
    this.codes = order;
    this.levels = new float[order.length];
    for (int i = 0; i < order.length; i++) {
      levels[i] = byCode[order[i]];
    }
  }

  /** Null when codes and scales cannot be put into such a matrix one by one. */
  static @Nullable LevelWriter of(Matrix m) {
    if (m.encoding().isBlock()) {
      GgufCodes blocks = GgufCodes.of(m.encoding());
      return blocks == null ? null : new LevelWriter(m, blocks, blocks.levels());
    }
    boolean whole = m.nested().isEmpty() || isTable(m);
    if (m.encoding().isPlain() || m.scales().isEmpty() || m.zeros().isPresent() || !whole) {
      return null;
    }
    float[] byCode = new float[1 << m.encoding().bits()];
    for (int code = 0; code < byCode.length; code++) {
      byCode[code] = LevelReader.level(m, code) - m.zeroPoint();
    }
    return new LevelWriter(m, null, byCode);
  }

  /** Whether the codebook alone says what the scales' codes mean. */
  private static boolean isTable(Matrix m) {
    Matrix.Nested nested = m.nested().orElseThrow();
    return nested.block() == Long.MAX_VALUE
        && nested.offset() == 0
        && Numbers.get(Encoding.F32, nested.scales(), 0) == 1;
  }

  /** How many elements of the row from this one on share a scale. */
  long run(long row, long column) {
    return blocks == null
        ? Math.min(m.k() - column, MatrixValues.run(m, row, column))
        : blocks.group() - column % blocks.group();
  }

  boolean hasOffsets() {
    return blocks == null ? m.offsets().isPresent() : blocks.hasMinimum();
  }

  float leastLevel() {
    return levels[0];
  }

  /**
   * Stores elements of one run.
   *
   * @return whether they can be held; when not, the matrix holds anything
   */
  boolean put(
      long row, long column, float[] wanted, int count, double shift, double scale, double offset) {
    if ((float) scale != scale || (float) offset != offset) {
      return false;
    }
    boolean parameters =
        blocks == null
            ? putInMatrix(row, column, (float) scale, (float) offset)
            : putInBlock(row, column, (float) scale, (float) offset);
    if (!parameters) {
      return false;
    }
    for (int i = 0; i < count; i++) {
      int at = find(shift == 0 ? wanted[i] : (float) (wanted[i] + shift)); // -0 + 0 were 0
      if (at < 0) {
        return false;
      }
      putCode(row, column + i, codes[at]);
    }
    return true;
  }

  private int find(float level) {
    int at = Arrays.binarySearch(levels, level);
    return at < 0 && level == 0 ? Arrays.binarySearch(levels, -level) : at;
  }

  private void putCode(long row, long column, int code) {
    if (blocks == null) {
      MatrixValues.putCode(m, row, column, code);
    } else {
      blocks.putCode(
          m.codes(),
          Codes.block(m, row, column),
          (int) (column % m.encoding().blockElements()),
          code);
    }
  }

  private boolean putInMatrix(long row, long column, float scale, float offset) {
    long at = MatrixValues.scaleIndex(m, row, column);
    if (at >= Integer.MAX_VALUE) {
      return false;
    }
    boolean first = !stored.get((int) at);
    stored.set((int) at);
    if (first) {
      putScale(m.scales().orElseThrow(), at, scale);
    }
    boolean held = MatrixValues.storedScale(m, row, column) == scale;
    if (m.offsets().isEmpty()) {
      return held && offset == 0;
    }
    if (first) {
      Matrix.Values offsets = m.offsets().get();
      float signed = m.offsetsSubtracted() ? -offset : offset;
      Numbers.put(offsets.type(), offsets.data(), MatrixValues.index(m, row, column), signed);
    }
    return held && MatrixValues.offset(m, row, column) == offset;
  }

  private void putScale(Matrix.Values scales, long at, float scale) {
    if (m.nested().isEmpty()) {
      Numbers.put(scales.type(), scales.data(), at, scale);
      return;
    }
    MemorySegment table = m.nested().get().codebook();
    for (int code = 0; code < 256; code++) {
      if (Numbers.get(Encoding.F32, table, code) == scale) {
        scales.data().set(ValueLayout.JAVA_BYTE, at, (byte) code);
        return;
      }
    }
  }

  private boolean putInBlock(long row, long column, float scale, float offset) {
    GgufCodes to = Objects.requireNonNull(blocks);
    long at = Codes.block(m, row, column);
    int element = (int) (column % m.encoding().blockElements());
    if (to.hasMinimum() && to.putMinimum(m.codes(), at, offset) != offset) {
      return false;
    }
    return to.putScale(m.codes(), at, element, scale) == scale && (to.hasMinimum() || offset == 0);
  }
}
