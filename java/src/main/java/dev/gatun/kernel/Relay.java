package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.HalfFloat;
import java.lang.foreign.MemorySegment;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * Lays the codes and scales of one matrix out as another kind of matrix has them, where that can
 * hold them as they are: one rule for every pair of layouts. A weight is taken as level · scale +
 * offset, level being the decoded code less its zero point; the other must have the same levels, or
 * the same times a power of two or shifted where it has offsets, and hold the scales and offsets
 * that go with them exactly.
 */
public final class Relay {
  /** What levels may differ by: tables of 4-bit floats are found doubled and not. */
  private static final float[] FACTORS = {1f, 0.5f, 2f};

  private Relay() {}

  /**
   * Fills a matrix with the numbers of another of the same shape.
   *
   * @param target memory of zeros; holds anything when it cannot be done
   * @return whether it holds the same codes and scales now: then every number is the same but for
   *     what the two libraries round on the way ({@link #isSame})
   */
  public static boolean fill(Matrix source, Matrix target) {
    if (source.n() != target.n() || source.k() != target.k() || source.n() * source.k() == 0) {
      return false;
    }
    boolean alike =
        Math.max(1, source.rotation()) == Math.max(1, target.rotation())
            && source.rowScales().isPresent() == target.rowScales().isPresent()
            && (source.scaleOrder() == ScaleOrder.THEN_GLOBAL)
                == (target.scaleOrder() == ScaleOrder.THEN_GLOBAL);
    if (!alike) {
      return false;
    }
    if (source.rowScales().isPresent()) {
      MemorySegment rows = source.rowScales().get();
      MemorySegment.copy(
          rows, 0, target.rowScales().orElseThrow(), 0, Math.multiplyExact(source.n(), 4L));
    }
    if (isCopy(source, target)) {
      return copy(source, target);
    }
    LevelReader from = LevelReader.of(source);
    if (from == null) {
      return false;
    }
    for (boolean stored : List.of(true, false)) {
      float other = stored ? source.globalScale() : 1f;
      if (target.globalScale() != other) {
        continue;
      }
      for (float factor : FACTORS) {
        LevelWriter to = LevelWriter.of(target);
        if (to != null && fill(source, from, to, stored, factor)) {
          return true;
        }
      }
    }
    return false;
  }

  private static boolean fill(
      Matrix m, LevelReader from, LevelWriter to, boolean stored, float factor) {
    float[] levels = new float[256];
    for (long row = 0; row < m.n(); row++) {
      long column = 0;
      while (column < m.k()) {
        long run = Math.min(from.run(row, column), to.run(row, column));
        int count = (int) Math.min(levels.length, run);
        from.levels(row, column, count, levels);
        for (int i = 0; i < count; i++) {
          levels[i] *= factor;
        }
        double scale = (stored ? from.storedScale(row, column) : from.scale(row, column)) / factor;
        // Where there are offsets the least level of one becomes that of the other.
        double shift =
            to.hasOffsets() ? to.leastLevel() - (double) from.leastLevel(row, column) * factor : 0;
        double offset = from.offset(row, column) - shift * scale;
        if (!to.put(row, column, levels, count, shift, scale, offset)) {
          return false;
        }
        column += count;
      }
    }
    return true;
  }

  /** Whether the two differ in where their memory lies only. */
  private static boolean isCopy(Matrix a, Matrix b) {
    return a.encoding() == b.encoding()
        && a.codeOrder() == b.codeOrder()
        && a.codeRowStride() == b.codeRowStride()
        && a.codes().byteSize() == b.codes().byteSize()
        && a.granularity().equals(b.granularity())
        && a.scaleOrder() == b.scaleOrder()
        && a.globalScale() == b.globalScale()
        && a.zeroPoint() == b.zeroPoint()
        && a.offsetsSubtracted() == b.offsetsSubtracted()
        && a.columnGroups().isEmpty()
        && b.columnGroups().isEmpty()
        && sameParts(a, b);
  }

  private static boolean sameParts(Matrix a, Matrix b) {
    if (!a.memory().keySet().equals(b.memory().keySet())) {
      return false;
    }
    boolean nested =
        a.nested()
            .map(x -> x.block() + " " + x.offset())
            .equals(b.nested().map(x -> x.block() + " " + x.offset()));
    return nested
        && type(a.scales().orElse(null)) == type(b.scales().orElse(null))
        && type(a.zeros().orElse(null)) == type(b.zeros().orElse(null))
        && type(a.offsets().orElse(null)) == type(b.offsets().orElse(null))
        && a.memory().entrySet().stream()
            .allMatch(e -> e.getValue().byteSize() == b.memory().get(e.getKey()).byteSize());
  }

  private static @Nullable Encoding type(Matrix.@Nullable Values values) {
    return values == null ? null : values.type();
  }

  private static boolean copy(Matrix source, Matrix target) {
    source.memory().forEach((role, data) -> target.memory().get(role).copyFrom(data));
    return true;
  }

  /**
   * Whether two matrices of one shape stand for the same numbers, once these are rounded to the
   * type that the first is dequantized to; all NaN are one, and the two zeros.
   */
  public static boolean isSame(Matrix matrix, Matrix other) {
    int piece = (int) Math.min(Math.max(1, matrix.k()), 1 << 12);
    float[] before = new float[piece];
    float[] after = new float[piece];
    for (long row = 0; row < matrix.n(); row++) {
      for (long column = 0; column < matrix.k(); column += piece) {
        int count = (int) Math.min(piece, matrix.k() - column);
        MatrixValues.row(matrix, row, column, count, before);
        MatrixValues.row(other, row, column, count, after);
        for (int i = 0; i < count; i++) {
          float b = HalfFloat.round(matrix.result(), after[i]);
          if (before[i] != b && !(Float.isNaN(before[i]) && Float.isNaN(b))) {
            return false;
          }
        }
      }
    }
    return true;
  }
}
