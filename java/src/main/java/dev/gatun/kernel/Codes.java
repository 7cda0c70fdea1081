package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * Where the code of an element lies, for every {@link CodeOrder}. In all of them it is a run of
 * bits in the little-endian stream of bytes, but for GPTQ's 3 bits, whose words are a row apart.
 */
final class Codes {
  private static final int WORD = 32;

  /** The slot of a column in AWQ's words, by the column's number modulo 8. */
  private static final int[] SLOTS = {0, 4, 1, 5, 2, 6, 3, 7};

  private Codes() {}

  /** The unsigned code of an element of 1 to 8 bits. */
  static int get(Matrix m, long row, long column) {
    int bits = m.encoding().bits();
    if (bits == 3 && m.codeOrder() == CodeOrder.WORDS_K) {
      int code = 0;
      for (int i = 0; i < bits; i++) {
        code |= bits(m.codes(), bitOfThree(m, row, column, i), 1) << i;
      }
      return code;
    }
    return bits(m.codes(), position(m, row, column), bits);
  }

  /** Stores the unsigned code of an element; the other bits of its bytes are kept. */
  static void put(Matrix m, long row, long column, int code) {
    int bits = m.encoding().bits();
    if (bits == 3 && m.codeOrder() == CodeOrder.WORDS_K) {
      for (int i = 0; i < bits; i++) {
        setBits(m.codes(), bitOfThree(m, row, column, i), 1, code >>> i & 1);
      }
      return;
    }
    setBits(m.codes(), position(m, row, column), bits, code);
  }

  private static int bits(MemorySegment data, long at, int count) {
    int shift = (int) (at & 7);
    int value = data.get(ValueLayout.JAVA_BYTE, at >> 3) & 0xFF;
    if (shift + count > 8) {
      value |= (data.get(ValueLayout.JAVA_BYTE, (at >> 3) + 1) & 0xFF) << 8;
    }
    return value >>> shift & (1 << count) - 1;
  }

  private static void setBits(MemorySegment data, long at, int count, int value) {
    int shift = (int) (at & 7);
    int mask = (1 << count) - 1 << shift;
    int shifted = value << shift & mask;
    byte first = data.get(ValueLayout.JAVA_BYTE, at >> 3);
    data.set(ValueLayout.JAVA_BYTE, at >> 3, (byte) (first & ~mask | shifted));
    if (shift + count > 8) {
      byte second = data.get(ValueLayout.JAVA_BYTE, (at >> 3) + 1);
      data.set(ValueLayout.JAVA_BYTE, (at >> 3) + 1, (byte) (second & ~(mask >> 8) | shifted >> 8));
    }
  }

  /** The first bit of a code. */
  private static long position(Matrix m, long row, long column) {
    int b = m.encoding().bits();
    int w = WORD / b;
    return switch (m.codeOrder()) {
      case LOW_FIRST, BITS -> stream(m, row, column) * b + 8 * row * m.codeRowStride();
      case HIGH_FIRST -> (stream(m, row, column) ^ 1) * b + 8 * row * m.codeRowStride();
      case WORDS -> 8 * row * stride(m) + column / w * WORD + column % w * b;
      case WORDS_K -> 8 * (column / w) * stride(m) + row * WORD + column % w * b;
      case WORDS_N -> 8 * column * stride(m) + row / w * WORD + SLOTS[(int) (row % w)] * b;
      case SPLIT_ROWS -> split(m, row * m.k() + column);
      case TILES_8X16 -> tile(m, row, column);
    };
  }

  /** The element's number in the stream of its row, or of the matrix when rows have no padding. */
  private static long stream(Matrix m, long row, long column) {
    return m.codeRowStride() == 0 ? row * m.k() + column : column;
  }

  private static long split(Matrix m, long element) {
    long columns = splitColumns(m);
    long row = element / columns;
    long run = runRows(m, columns);
    return 8 * (row % run * columns + element % columns) + row / run * m.encoding().bits();
  }

  private static long splitColumns(Matrix m) {
    if (m.granularity() instanceof Granularity.Tile tile && m.k() % tile.cols() == 0) {
      return tile.cols();
    }
    throw new GatunException(
        "codes: found split rows with "
            + m.granularity()
            + ", expected scales of tiles whose columns divide K = "
            + m.k());
  }

  private static long runRows(Matrix m, long columns) {
    return Math.ceilDiv(m.n() * m.k() / columns, 8L / m.encoding().bits());
  }

  /** Lane l of a tile holds row l / 4 and columns 2·(l % 4) + {0, 1, 8, 9} of two tiles a word. */
  private static long tile(Matrix m, long row, long column) {
    int inTile = (int) (column % 16);
    long tile = column / 16;
    long lane = row % 8 * 4 + inTile % 8 / 2;
    long word = (tile / 8 * 32 + lane) * 4 + tile % 8 / 2;
    int value = inTile % 2 + inTile / 8 * 2 + (int) (tile % 2) * 4;
    int slot = value % 2 * 4 + value / 2;
    return 8 * (row / 8 * stride(m)) + word * WORD + slot * 4L;
  }

  /** Bit i of a 3-bit code in GPTQ's words: 32 codes are a stream of 96 bits in three words. */
  private static long bitOfThree(Matrix m, long row, long column, int i) {
    long bit = column % 32 * 3 + i;
    return 8 * (column / 32 * 3 + bit / WORD) * stride(m) + row * WORD + bit % WORD;
  }

  private static long stride(Matrix m) {
    return m.codeRowStride() == 0 ? rowBytes(m) : m.codeRowStride();
  }

  /** Bytes of one row of codes, words or tiles. */
  private static long rowBytes(Matrix m) {
    Encoding e = m.encoding();
    return switch (m.codeOrder()) {
      case LOW_FIRST, HIGH_FIRST, BITS ->
          e.isBlock()
              ? Math.multiplyExact(Math.ceilDiv(m.k(), (long) e.blockElements()), e.blockBytes())
              : bytes(Math.multiplyExact(m.k(), e.bits()));
      case WORDS -> Math.multiplyExact(Math.ceilDiv(m.k(), (long) (WORD / e.bits())), 4L);
      case WORDS_K -> Math.multiplyExact(m.n(), 4L);
      case WORDS_N -> Math.multiplyExact(Math.ceilDiv(m.n(), (long) (WORD / e.bits())), 4L);
      case SPLIT_ROWS -> splitColumns(m);
      case TILES_8X16 -> Math.multiplyExact(Math.ceilDiv(m.k(), 128L), 512L);
    };
  }

  /** How many rows of codes, words or tiles there are. */
  private static long rows(Matrix m) {
    int b = m.encoding().bits();
    return switch (m.codeOrder()) {
      case LOW_FIRST, HIGH_FIRST, BITS, WORDS -> m.n();
      case WORDS_K ->
          b == 3 ? Math.ceilDiv(m.k(), 32L) * 3 : Math.ceilDiv(m.k(), (long) (WORD / b));
      case WORDS_N -> m.k();
      case SPLIT_ROWS -> runRows(m, splitColumns(m));
      case TILES_8X16 -> Math.ceilDiv(m.n(), 8L);
    };
  }

  /** Bytes of codes that the shape needs; refuses an order that the encoding cannot have. */
  static long bytes(Matrix m) {
    checkOrder(m);
    if (Math.multiplyExact(m.n(), m.k()) == 0) {
      return 0;
    }
    if (m.codeRowStride() == 0
        && m.codeOrder().id() <= CodeOrder.BITS.id()
        && !m.encoding().isBlock()) {
      return bytes(Math.multiplyExact(Math.multiplyExact(m.n(), m.k()), m.encoding().bits()));
    }
    long row = rowBytes(m);
    if (m.codeRowStride() != 0 && m.codeRowStride() < row) {
      throw new GatunException(
          "codes: found rows "
              + m.codeRowStride()
              + " bytes apart, expected at least "
              + row
              + " for "
              + m.n()
              + " x "
              + m.k());
    }
    return Math.addExact(Math.multiplyExact(rows(m) - 1, stride(m)), row);
  }

  private static void checkOrder(Matrix m) {
    Encoding e = m.encoding();
    int b = e.bits();
    boolean possible =
        switch (m.codeOrder()) {
          case LOW_FIRST -> e.isBlock() || b % 8 == 0 || 8 % b == 0;
          case HIGH_FIRST, TILES_8X16 -> b == 4;
          case BITS, WORDS -> b >= 1 && b <= 8;
          case WORDS_K -> b >= 1 && b <= 8 && (b == 3 || 32 % b == 0) && m.codeRowStride() == 0;
          case WORDS_N -> b == 4 && m.codeRowStride() == 0;
          case SPLIT_ROWS -> b >= 1 && b <= 8 && 8 % b == 0 && m.codeRowStride() == 0;
        };
    if (!possible) {
      throw new GatunException(
          "codes: found "
              + e
              + " in the order "
              + m.codeOrder()
              + " with row stride "
              + m.codeRowStride()
              + ", which there is not");
    }
    if (e.isBlock() && m.k() % e.blockElements() != 0) {
      throw new GatunException(
          "codes: found K = "
              + m.k()
              + ", expected a multiple of "
              + e.blockElements()
              + " for "
              + e);
    }
  }

  private static long bytes(long bits) {
    return bits / 8 + (bits % 8 == 0 ? 0 : 1);
  }

  /** The first byte of an element's self-contained block. */
  static long block(Matrix m, long row, long column) {
    return row * stride(m) + column / m.encoding().blockElements() * m.encoding().blockBytes();
  }
}
