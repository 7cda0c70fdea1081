package dev.gatun.kernel.vector;

import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/** Some rows of a matrix as a matrix of their own, for dividing a codec's work. */
final class RowRange {
  private RowRange() {}

  /**
   * The smallest number of rows after which codes begin a byte and scales a block of their own; 0
   * when rows cannot be told apart.
   */
  static long step(Matrix m) {
    boolean inOrder = m.codeOrder() == CodeOrder.LOW_FIRST || m.codeOrder() == CodeOrder.HIGH_FIRST;
    boolean bare = m.nested().isEmpty() && m.rowScales().isEmpty() && m.scaleOrder().id() == 0;
    if (!inOrder || !bare || m.k() == 0) {
      return 0;
    }
    if (m.encoding().isBlock()) {
      return 1;
    }
    long codes = m.codeRowStride() != 0 || m.k() * m.encoding().bits() % 8 == 0 ? 1 : 8;
    long scales =
        switch (m.granularity()) {
          case Granularity.Tile t -> Math.clamp(m.n(), 1, t.rows());
          case Granularity.Flat f -> f.block() / gcd(f.block(), m.k());
        };
    return codes / gcd(codes, scales) * scales;
  }

  private static long gcd(long a, long b) {
    return b == 0 ? a : gcd(b, a % b);
  }

  /** Rows {@code first .. first+rows-1}; first is a multiple of {@link #step}. */
  static Matrix of(Matrix m, long first, long rows) {
    long parameter = m.granularity().index(first, 0, m.k());
    return m.toBuilder()
        .shape(rows, m.k())
        .codes(m.codes().asSlice(codeByte(m, first)))
        .scales(from(m.scales(), parameter))
        .zeros(from(m.zeros(), parameter))
        .build();
  }

  private static long codeByte(Matrix m, long row) {
    if (m.codeRowStride() != 0) {
      return row * m.codeRowStride();
    }
    return m.encoding().isBlock()
        ? row * (m.k() / m.encoding().blockElements()) * m.encoding().blockBytes()
        : row * m.k() * m.encoding().bits() / 8;
  }

  private static Optional<Matrix.Values> from(Optional<Matrix.Values> values, long index) {
    return values.map(v -> new Matrix.Values(v.type(), slice(v, index)));
  }

  private static MemorySegment slice(Matrix.Values v, long index) {
    return v.data().asSlice(index * (v.type().bits() / 8));
  }
}
