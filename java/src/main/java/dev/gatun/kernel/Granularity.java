package dev.gatun.kernel;

/** Which weights share a scale. Indices and strides count scales, not bytes. */
public sealed interface Granularity {
  /**
   * One scale per {@code rows × cols} tile, at index {@code (n/rows)·rowStride +
   * (k/cols)·colStride}.
   */
  record Tile(long rows, long cols, long rowStride, long colStride) implements Granularity {}

  /**
   * One scale per {@code block} consecutive elements of the flattened row-major tensor; rows may
   * straddle a block.
   */
  record Flat(long block) implements Granularity {}

  /** One scale for the whole N × K matrix. */
  static Granularity perTensor(long n, long k) {
    return new Tile(Math.max(1, n), Math.max(1, k), 0, 0);
  }

  /** One scale per row of K. */
  static Granularity perChannel(long k) {
    return new Tile(1, Math.max(1, k), 1, 0);
  }

  /** One scale per {@code group} consecutive weights of a row; scales lie as [N, ceil(K/group)]. */
  static Granularity perGroup(long k, long group) {
    return new Tile(1, group, (k + group - 1) / group, 1);
  }

  /** The index of the scale of element (row, column) of a matrix with {@code k} columns. */
  default long index(long row, long column, long k) {
    return switch (this) {
      case Tile t -> row / t.rows * t.rowStride + column / t.cols * t.colStride;
      case Flat f -> (row * k + column) / f.block;
    };
  }
}
