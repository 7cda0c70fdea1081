package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.BlockParts;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * A weight as it is before anything is rounded: number = level · scale + offset, the level being
 * the decoded code less its zero point. Not thread-safe.
 */
final class LevelReader {
  private final Matrix m;
  private final @Nullable BlockParts parts;
  private final float least;
  private long blockAt = -1;
  private float[] levels = new float[0];
  private float[] scales = new float[0];
  private float[] offsets = new float[0];

  private LevelReader(Matrix m, @Nullable BlockParts parts) {
    this.m = m;
    this.parts = parts;
    this.least = least(m, parts);
  }

  /** The weight seen so; null when it has no codes. */
  static @Nullable LevelReader of(Matrix m) {
    BlockParts parts = BlockParts.of(m.encoding());
    return m.encoding().isPlain() || (m.encoding().isBlock() && parts == null)
        ? null
        : new LevelReader(m, parts);
  }

  /** How many elements of the row from this one on share scale, offset and zero point. */
  long run(long row, long column) {
    return parts == null
        ? Math.min(m.k() - column, MatrixValues.run(m, row, column))
        : parts.group() - column % parts.group();
  }

  /** Levels of elements that share a block or a scale. */
  void levels(long row, long column, int count, float[] out) {
    if (parts != null) {
      int first = take(row, column);
      System.arraycopy(levels, first, out, 0, count);
      return;
    }
    float zero = MatrixValues.zero(m, row, column);
    for (int i = 0; i < count; i++) {
      out[i] = MatrixValues.decode(m, row, column + i) - zero;
    }
  }

  /** The least level that a code of this element can have. */
  float leastLevel(long row, long column) {
    return parts == null ? least - MatrixValues.zero(m, row, column) : least;
  }

  private static float least(Matrix m, @Nullable BlockParts parts) {
    if (parts != null) {
      return parts.table().length == 0 ? -128 : parts.table()[0];
    }
    float least = Float.POSITIVE_INFINITY;
    for (int code = 0; code < 1 << m.encoding().bits(); code++) {
      least = Math.min(least, level(m, code));
    }
    return least;
  }

  /** What a code of a matrix that is not made of blocks stands for, its zero point aside. */
  static float level(Matrix m, int code) {
    return m.codebook().isPresent()
        ? Numbers.get(Encoding.F32, m.codebook().get(), code)
        : Codebooks.decode(m.encoding(), code);
  }

  /** The scale as it is stored, without the global one. */
  float storedScale(long row, long column) {
    return parts == null ? MatrixValues.storedScale(m, row, column) : scales[take(row, column)];
  }

  /** The scale that the level is multiplied by, with the global one, as the library rounds it. */
  double scale(long row, long column) {
    return parts == null
        ? MatrixValues.scale(m, row, column)
        : (double) scales[take(row, column)] * m.globalScale();
  }

  /** What is added after scaling. */
  float offset(long row, long column) {
    return parts == null ? MatrixValues.offset(m, row, column) : offsets[take(row, column)];
  }

  /** Takes the element's block apart; gives its place there. */
  private int take(long row, long column) {
    long at = Codes.block(m, row, column);
    if (at != blockAt) {
      MemorySegment codes = m.codes();
      BlockParts block = Objects.requireNonNull(parts);
      levels = block.codes(codes, at).clone();
      scales = block.scales(codes, at).clone();
      offsets = block.offsets(codes, at).clone();
      blockAt = at;
    }
    return (int) (column % m.encoding().blockElements());
  }
}
