package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.function.Consumer;

/**
 * The weights that share a scale: {@code rows} runs of {@code columns} elements of the flattened
 * matrix, K apart. A block may be the whole weight, so its numbers are read piece by piece.
 */
final class ScaleBlock {
  /** Numbers that are held at once. */
  static final int PIECE = 1 << 16;

  private final Matrix m;
  private final MemorySegment weight;
  private final Encoding type;
  private final long first;
  private final long columns;
  private final long count;

  private ScaleBlock(
      Matrix m, MemorySegment weight, Encoding type, long first, long rows, long columns) {
    this.m = m;
    this.weight = weight;
    this.type = type;
    this.first = first;
    this.columns = columns;
    this.count = rows * columns;
  }

  /**
   * Every block of a matrix, in ascending order.
   *
   * @param weight what the matrix is made of: N × K numbers
   * @param type of them: F32, F16 or BF16
   */
  static void forEach(
      Matrix m, MemorySegment weight, Encoding type, Consumer<ScaleBlock> consumer) {
    long n = m.n();
    long k = m.k();
    switch (m.granularity()) {
      case Granularity.Tile t -> {
        for (long row = 0; row < n; row = next(row, t.rows(), n)) {
          long rows = next(row, t.rows(), n) - row;
          for (long column = 0; column < k; column = next(column, t.cols(), k)) {
            long across = next(column, t.cols(), k) - column;
            consumer.accept(new ScaleBlock(m, weight, type, row * k + column, rows, across));
          }
        }
      }
      case Granularity.Flat f -> {
        for (long start = 0; start < n * k; start = next(start, f.block(), n * k)) {
          long length = next(start, f.block(), n * k) - start;
          consumer.accept(new ScaleBlock(m, weight, type, start, 1, length));
        }
      }
    }
  }

  private static long next(long from, long step, long end) {
    return step > end - from ? end : from + step;
  }

  long count() {
    return count;
  }

  /** The row of the first element. */
  long row() {
    return first / m.k();
  }

  /** The column of the first element. */
  long column() {
    return first % m.k();
  }

  /** The place in the flattened matrix of the block's element i. */
  long flat(long i) {
    return i < columns ? first + i : first + i / columns * m.k() + i % columns;
  }

  float get(long i) {
    return Numbers.get(type, weight, flat(i));
  }

  /** Elements from .. from+length-1 into the start of an array. */
  void read(long from, int length, float[] into) {
    for (int i = 0; i < length; i++) {
      into[i] = get(from + i);
    }
  }

  /** At most so many elements, evenly spread over the block. */
  float[] sample(int limit) {
    int length = (int) Math.min(count, limit);
    float[] sample = new float[length];
    for (int i = 0; i < length; i++) {
      sample[i] = get(length == count ? i : (long) ((double) i / length * count));
    }
    return sample;
  }

  /** Hears pieces of the block with the index of their first element. */
  void pieces(PieceConsumer consumer) {
    float[] piece = new float[(int) Math.min(PIECE, count)];
    for (long from = 0; from < count; from += piece.length) {
      int length = (int) Math.min(piece.length, count - from);
      read(from, length, piece);
      consumer.accept(from, length, piece);
    }
  }

  /** Hears pieces of a block. */
  @FunctionalInterface
  interface PieceConsumer {
    /** Only the first {@code length} numbers count. */
    void accept(long from, int length, float[] piece);
  }

  /** The smallest and largest number, and the largest magnitude; NaN when one is NaN. */
  float[] range() {
    float[] range = {Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY, 0};
    pieces(
        (from, length, piece) -> {
          for (int i = 0; i < length; i++) {
            range[0] = Math.min(range[0], piece[i]);
            range[1] = Math.max(range[1], piece[i]);
            range[2] = Math.max(range[2], Math.abs(piece[i]));
          }
        });
    return range;
  }

  /**
   * A percentile of the numbers, or of their magnitudes: of the sorted numbers, the one at {@code
   * percentile / 100 · (count - 1)}, interpolated.
   */
  double percentile(double percentile, boolean magnitudes) {
    double place = percentile / 100 * (count - 1);
    long below = (long) Math.floor(place);
    long above = Math.min(count - 1, below + 1);
    float low;
    float high;
    if (count <= PIECE) {
      float[] sorted = sample(PIECE);
      for (int i = 0; magnitudes && i < sorted.length; i++) {
        sorted[i] = Math.abs(sorted[i]);
      }
      Arrays.sort(sorted);
      low = sorted[(int) below];
      high = sorted[(int) above];
    } else {
      low = ranked(below, magnitudes);
      high = ranked(above, magnitudes);
    }
    return low + (place - below) * ((double) high - low);
  }

  /** The number of a rank, found by counting the upper and then the lower halves of the bits. */
  private float ranked(long rank, boolean magnitudes) {
    long[] counts = new long[1 << 16];
    pieces(
        (from, length, piece) -> {
          for (int i = 0; i < length; i++) {
            counts[ordered(piece[i], magnitudes) >>> 16]++;
          }
        });
    int upper = 0;
    long left = rank;
    while (left >= counts[upper]) {
      left -= counts[upper++];
    }
    Arrays.fill(counts, 0);
    int half = upper;
    pieces(
        (from, length, piece) -> {
          for (int i = 0; i < length; i++) {
            int bits = ordered(piece[i], magnitudes);
            if (bits >>> 16 == half) {
              counts[bits & 0xFFFF]++;
            }
          }
        });
    int lower = 0;
    while (left >= counts[lower]) {
      left -= counts[lower++];
    }
    int bits = upper << 16 | lower;
    return Float.intBitsToFloat(bits < 0 ? bits & 0x7FFFFFFF : ~bits);
  }

  /** Bits whose unsigned order is that of the numbers. */
  private static int ordered(float value, boolean magnitude) {
    int bits = Float.floatToRawIntBits(magnitude ? Math.abs(value) : value);
    return bits < 0 ? ~bits : bits | 0x80000000;
  }
}
