package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.GatunException;
import java.lang.foreign.MemorySegment;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What must hold before a product touches memory: types, counts and strides of x, y and what a call
 * brings along besides, and the experts of a grouped one. Memory that is too short is an {@link
 * IndexOutOfBoundsException}, all else a {@link GatunException}; both say in one line what was
 * found and what was expected.
 */
public final class LinearCheck {
  private LinearCheck() {}

  /**
   * One call of {@code linear}: types, counts, strides and bounds. Allocates nothing unless it
   * throws.
   *
   * @throws GatunException for a type, a count or a stride that cannot be
   * @throws IndexOutOfBoundsException for a segment that is too short
   */
  public static void linear(
      long n,
      long k,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy) {
    if (y.isReadOnly()) {
      throw new GatunException("linear: found a read-only y, expected one that can be written");
    }
    plain(xType, yType, m);
    matrixOperand("x", x.byteSize(), m, k, ldx, xType.bits() / 8);
    matrixOperand("y", y.byteSize(), m, n, ldy, yType.bits() / 8);
  }

  /** The same for memory that is not Java's, given by its size. */
  static void linear(
      long n,
      long k,
      long xBytes,
      Encoding xType,
      long ldx,
      long m,
      long yBytes,
      Encoding yType,
      long ldy) {
    plain(xType, yType, m);
    matrixOperand("x", xBytes, m, k, ldx, xType.bits() / 8);
    matrixOperand("y", yBytes, m, n, ldy, yType.bits() / 8);
  }

  /** The same for x of 8-bit codes. */
  static void codes(
      long n, long k, long xBytes, long ldx, long m, long yBytes, Encoding yType, long ldy) {
    plain(yType, yType, m);
    matrixOperand("x", xBytes, m, k, ldx, 1);
    matrixOperand("y", yBytes, m, n, ldy, yType.bits() / 8);
  }

  private static void plain(Encoding xType, Encoding yType, long m) {
    if (!xType.isPlain() || !yType.isPlain()) {
      throw new GatunException(
          "linear: found x of " + xType + " and y of " + yType + ", expected F32, F16 or BF16");
    }
    if (m < 1) {
      throw new GatunException("linear: found " + m + " rows, expected at least 1");
    }
  }

  /**
   * What a call of {@code linear} brings along besides x and y. Allocates nothing unless it throws.
   *
   * @throws GatunException for an {@code other} that is there and not combined with, or the reverse
   * @throws IndexOutOfBoundsException for a segment that is too short
   */
  public static void fused(
      long n,
      long k,
      long m,
      @Nullable MemorySegment bias,
      @Nullable MemorySegment xMultiplier,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      Encoding yType,
      long ldOther) {
    fused(
        n,
        k,
        m,
        bias == null ? -1 : bias.byteSize(),
        xMultiplier == null ? -1 : xMultiplier.byteSize(),
        epilogue,
        other == null ? -1 : other.byteSize(),
        yType,
        ldOther);
  }

  /** The same for memory that is not Java's; -1 is the size of what is not there. */
  static void fused(
      long n,
      long k,
      long m,
      long biasBytes,
      long multiplierBytes,
      Epilogue epilogue,
      long otherBytes,
      Encoding yType,
      long ldOther) {
    floats("bias", biasBytes, n);
    floats("multiplier of x", multiplierBytes, k);
    combined(epilogue, otherBytes >= 0);
    if (otherBytes >= 0) {
      matrixOperand("other", otherBytes, m, n, ldOther, yType.bits() / 8);
    }
  }

  private static void combined(Epilogue epilogue, boolean hasOther) {
    boolean combines = epilogue.combine() != Epilogue.Combine.NONE;
    if (combines != hasOther) {
      throw new GatunException(
          "linear: found "
              + (combines ? "no " : "an ")
              + "'other' with combine "
              + epilogue.combine()
              + ", expected "
              + (combines ? "M x N numbers" : "none"));
    }
  }

  /** Experts of a grouped product: at least one, all of one shape. */
  static void experts(List<PackedGroup.Expert> experts) {
    if (experts.isEmpty()) {
      throw new GatunException("grouped linear: found no experts, expected at least 1");
    }
    PackedWeight first = experts.getFirst().packed();
    for (PackedGroup.Expert expert : experts) {
      PackedWeight weight = expert.packed();
      if (weight.n() != first.n() || weight.k() != first.k()) {
        throw new GatunException(
            "grouped linear: found an expert of "
                + weight.n()
                + " x "
                + weight.k()
                + ", expected "
                + first.n()
                + " x "
                + first.k()
                + " as the first");
      }
    }
  }

  /**
   * The offsets of a grouped product: one more than there are experts, from 0 on, none below the
   * one before.
   *
   * @return the last one: M
   * @throws GatunException when they do not hold together
   */
  public static long offsets(long[] offsets, int experts) {
    if (offsets.length != experts + 1 || offsets[0] != 0) {
      throw new GatunException(
          "grouped linear: found "
              + offsets.length
              + " offsets"
              + (offsets.length == 0 ? "" : " from " + offsets[0] + " on")
              + ", expected "
              + (experts + 1)
              + " from 0 on");
    }
    for (int e = 0; e < experts; e++) {
      if (offsets[e + 1] < offsets[e]) {
        throw new GatunException(
            "grouped linear: found offset "
                + offsets[e + 1]
                + " after "
                + offsets[e]
                + " for expert "
                + e
                + ", expected none below the one before");
      }
    }
    return offsets[experts];
  }

  /** The same, and that they are those of a call with so many rows. */
  static void offsets(long[] offsets, int experts, long m) {
    if (offsets(offsets, experts) != m) {
      throw new GatunException(
          "grouped linear: found offsets up to " + offsets[experts] + ", expected " + m + " rows");
    }
  }

  /** What {@code round} is handed. */
  public static void round(
      MemorySegment x,
      Encoding xType,
      long ldx,
      long rows,
      long columns,
      @Nullable MemorySegment xMultiplier,
      MemorySegment y,
      Encoding yType,
      long ldy) {
    if (rows < 0 || columns < 0) {
      throw new GatunException("round: found " + rows + " x " + columns + " numbers");
    }
    if (rows > 0) {
      linear(columns, columns, x, xType, ldx, rows, y, yType, ldy);
    }
    floats("multiplier of x", xMultiplier == null ? -1 : xMultiplier.byteSize(), columns);
  }

  private static void floats(String what, long bytes, long count) {
    if (bytes >= 0 && bytes / Float.BYTES < count) {
      throw new IndexOutOfBoundsException(
          "linear: found a " + what + " of " + bytes + " bytes, expected " + count + " floats");
    }
  }

  private static void matrixOperand(
      String what, long bytes, long rows, long columns, long ld, int size) {
    if (ld < columns) {
      throw new GatunException(
          "linear: found rows of "
              + what
              + " "
              + ld
              + " elements apart, expected at least "
              + columns);
    }
    // (rows - 1) * ld + columns elements, without overflow
    long have = bytes / size;
    if (columns > 0 && (have < columns || (rows > 1 && (have - columns) / ld < rows - 1))) {
      throw new IndexOutOfBoundsException(
          "linear: found "
              + what
              + " of "
              + bytes
              + " bytes, expected "
              + rows
              + " rows of "
              + columns
              + " elements of "
              + size
              + " bytes, "
              + ld
              + " elements apart");
    }
  }
}
