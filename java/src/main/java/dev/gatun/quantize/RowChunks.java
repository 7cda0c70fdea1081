package dev.gatun.quantize;

/**
 * How many rows of a matrix are worked on at once, so that memory does not grow with the
 * checkpoint.
 */
final class RowChunks {
  private static final long BYTES = 1L << 24;

  private RowChunks() {}

  /** At least one row, else as many as make about 16 MiB. */
  static long rows(long bytesPerRow) {
    return Math.max(1, BYTES / Math.max(1, bytesPerRow));
  }
}
