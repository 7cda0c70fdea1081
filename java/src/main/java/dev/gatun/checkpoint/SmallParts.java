package dev.gatun.checkpoint;

import dev.gatun.Tensor;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Optional;

/** Small parts of a weight that are unpacked or looked through when it is first used. */
record SmallParts(Parts parts) {
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfLong LONG =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** The unsigned number at a row and column of what is unpacked. */
  interface Element {
    int at(long row, long column);
  }

  /** rows × columns bytes, row-major, in memory that ends with the checkpoint. */
  MemorySegment bytes(long rows, long columns, Element element) {
    MemorySegment bytes = parts.source().arena().allocate(Math.max(1, rows * columns), 64);
    for (long row = 0; row < rows; row++) {
      for (long column = 0; column < columns; column++) {
        bytes.set(ValueLayout.JAVA_BYTE, row * columns + column, (byte) element.at(row, column));
      }
    }
    return bytes;
  }

  /** {@code count} bits from bit {@code at} of a tensor of 32-bit words on. */
  static int bits(Tensor words, long at, int count) {
    long low = words.data().get(INT, at / 32 * 4) & 0xFFFFFFFFL;
    int shift = (int) (at % 32);
    if (shift + count > 32) {
      low |= (words.data().get(INT, at / 32 * 4 + 4) & 0xFFFFFFFFL) << 32;
    }
    return (int) (low >>> shift) & (1 << count) - 1;
  }

  /** A number of a tensor of one element. */
  static float first(Tensor scalar) {
    return Numbers.get(Parts.encoding(scalar), scalar.data(), 0);
  }

  /** A whole number of a tensor of I32 or I64. */
  static long whole(Tensor tensor, long index) {
    return tensor.dtype() == DType.I64
        ? tensor.data().get(LONG, 8 * index)
        : tensor.data().get(INT, 4 * index);
  }

  /** Whether every byte is 0. */
  static boolean isZero(MemorySegment data) {
    for (long i = 0; i < data.byteSize(); i++) {
      if (data.get(ValueLayout.JAVA_BYTE, i) != 0) {
        return false;
      }
    }
    return true;
  }

  /**
   * The group of each column as 32-bit integers; empty when they are in order: group k / {@code
   * group}, or marked with -1 as not used.
   */
  Optional<MemorySegment> columnGroups(Optional<Tensor> tensor, long group, long groups) {
    if (tensor.isEmpty() || tensor.get().elements() == 0 || whole(tensor.get(), 0) == -1) {
      return Optional.empty();
    }
    Tensor index = tensor.get();
    boolean inOrder = true;
    for (long k = 0; k < index.elements(); k++) {
      long g = whole(index, k);
      if (g < 0 || g >= groups) {
        throw parts.problem(index, "group " + g + " at index " + k, "0 to " + (groups - 1));
      }
      inOrder &= g == k / group;
    }
    if (inOrder) {
      return Optional.empty();
    }
    if (index.dtype() == DType.I32) {
      return Optional.of(index.data());
    }
    MemorySegment ints = parts.source().arena().allocate(4 * index.elements(), 64);
    for (long k = 0; k < index.elements(); k++) {
      ints.set(INT, 4 * k, (int) whole(index, k));
    }
    return Optional.of(ints);
  }
}
