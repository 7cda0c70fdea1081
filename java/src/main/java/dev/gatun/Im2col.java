package dev.gatun;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * Brings what a window sees side by side: for each output position a row of channels × kernel
 * height × kernel width numbers, zeros outside the image. Numbers are moved, not looked at.
 */
final class Im2col {
  /** Rows and columns that are turned together: the lines of both sides stay in the cache. */
  private static final int TILE = 16;

  private final Conv2d.Geometry geometry;
  private final int kernelHeight;
  private final int kernelWidth;
  private final long height;
  private final long width;
  private final long outWidth;
  private final int size;

  /**
   * For images of one shape.
   *
   * @param size bytes of a number: 4 or 2
   */
  Im2col(
      Conv2d.Geometry geometry,
      int kernelHeight,
      int kernelWidth,
      long height,
      long width,
      long outWidth,
      int size) {
    this.geometry = geometry;
    this.kernelHeight = kernelHeight;
    this.kernelWidth = kernelWidth;
    this.height = height;
    this.width = width;
    this.outWidth = outWidth;
    this.size = size;
  }

  /**
   * Rows for positions {@code first .. first+count-1}.
   *
   * @param from index of the first number of the first channel in {@code x}
   */
  void gather(
      MemorySegment x, long from, long channels, long first, int count, MemorySegment matrix) {
    long k = channels * kernelHeight * kernelWidth;
    for (int row = 0; row < count; row++) {
      long top = (first + row) / outWidth * geometry.strideHeight() - geometry.paddingHeight();
      long left = (first + row) % outWidth * geometry.strideWidth() - geometry.paddingWidth();
      // Columns of the kernel that lie within the image: the same for every channel.
      int step = geometry.dilationWidth();
      int begin = left >= 0 ? 0 : (int) Math.min(kernelWidth, Math.ceilDiv(-left, step));
      int end = Math.clamp(Math.ceilDiv(width - left, step), begin, kernelWidth);
      long to = row * k;
      for (long c = 0; c < channels; c++) {
        long plane = from + c * height * width;
        for (int u = 0; u < kernelHeight; u++, to += kernelWidth) {
          long line = top + (long) u * geometry.dilationHeight();
          boolean inside = line >= 0 && line < height && begin < end;
          if (!inside) {
            zero(matrix, to, kernelWidth);
            continue;
          }
          zero(matrix, to, begin);
          copy(x, plane + line * width + left, step, begin, end, matrix, to);
          zero(matrix, to + end, kernelWidth - end);
        }
      }
    }
  }

  private void zero(MemorySegment matrix, long at, int count) {
    for (int i = 0; i < count; i++) {
      if (size == Float.BYTES) {
        matrix.set(ValueLayout.JAVA_INT_UNALIGNED, (at + i) * size, 0);
      } else {
        matrix.set(ValueLayout.JAVA_SHORT_UNALIGNED, (at + i) * size, (short) 0);
      }
    }
  }

  /** Moves kernel columns {@code begin .. end-1}; {@code origin} is where column 0 would be. */
  private void copy(
      MemorySegment x, long origin, int step, int begin, int end, MemorySegment matrix, long to) {
    for (int v = begin; v < end; v++) {
      long at = (origin + (long) v * step) * size;
      if (size == Float.BYTES) {
        matrix.set(
            ValueLayout.JAVA_INT_UNALIGNED,
            (to + v) * size,
            x.get(ValueLayout.JAVA_INT_UNALIGNED, at));
      } else {
        matrix.set(
            ValueLayout.JAVA_SHORT_UNALIGNED,
            (to + v) * size,
            x.get(ValueLayout.JAVA_SHORT_UNALIGNED, at));
      }
    }
  }

  /**
   * {@code to[c][r] = from[r][c]} for {@code rows} × {@code columns} numbers.
   *
   * @param fromAt index of the first number
   * @param ldFrom numbers from one row of {@code from} to the next
   * @param ldTo numbers from one row of {@code to} to the next
   */
  private static void transpose(
      MemorySegment from,
      long fromAt,
      long ldFrom,
      long rows,
      MemorySegment to,
      long toAt,
      long ldTo,
      long columns,
      int size) {
    for (long r0 = 0; r0 < rows; r0 += TILE) {
      for (long c0 = 0; c0 < columns; c0 += TILE) {
        for (long c = c0; c < Math.min(columns, c0 + TILE); c++) {
          for (long r = r0; r < Math.min(rows, r0 + TILE); r++) {
            long at = (fromAt + r * ldFrom + c) * size;
            long there = (toAt + c * ldTo + r) * size;
            if (size == Float.BYTES) {
              to.set(
                  ValueLayout.JAVA_INT_UNALIGNED,
                  there,
                  from.get(ValueLayout.JAVA_INT_UNALIGNED, at));
            } else {
              to.set(
                  ValueLayout.JAVA_SHORT_UNALIGNED,
                  there,
                  from.get(ValueLayout.JAVA_SHORT_UNALIGNED, at));
            }
          }
        }
      }
    }
  }

  /** The same for numbers of a plain type. */
  static void transpose(
      MemorySegment from,
      long fromAt,
      long ldFrom,
      long rows,
      MemorySegment to,
      long toAt,
      long ldTo,
      long columns,
      Encoding type) {
    transpose(from, fromAt, ldFrom, rows, to, toAt, ldTo, columns, type.bits() / 8);
  }
}
