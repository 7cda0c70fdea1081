package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.ScaleOrder;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * Weights whose codes are bytes with one scale per row or tensor, as several formats hold them:
 * {@code code · scale}. They go from one to another with the same codes.
 */
final class ByteRelay {
  /** The weight as it was read. */
  final Matrix matrix;

  /** One per row. */
  final float[] scales;

  private ByteRelay(Matrix matrix, float[] scales) {
    this.matrix = matrix;
    this.scales = scales;
  }

  /** The weight seen so; empty when it is anything else. */
  static Optional<ByteRelay> of(QuantizedTensor weight, Encoding encoding) {
    if (weight.shape().size() != 2 || weight.inputMultiplier().isPresent()) {
      return Optional.empty();
    }
    Matrix m = weight.matrix();
    boolean bytes =
        m.encoding() == encoding
            && m.codeOrder() == CodeOrder.LOW_FIRST
            && (m.codeRowStride() == 0 || m.codeRowStride() == m.k());
    boolean onlyScaled =
        m.zeros().isEmpty()
            && m.zeroPoint() == 0
            && m.offsets().isEmpty()
            && m.codebook().isEmpty()
            && m.columnGroups().isEmpty()
            && m.rowScales().isEmpty()
            && m.rotation() <= 1
            && m.scaleOrder() == ScaleOrder.STRIDED;
    boolean sized = m.n() > 0 && m.k() > 0 && m.n() <= Integer.MAX_VALUE - 8;
    if (!bytes || !onlyScaled || !sized) {
      return Optional.empty();
    }
    float[] scales = new float[(int) m.n()];
    for (int row = 0; row < scales.length; row++) {
      if (MatrixValues.run(m, row, 0) < m.k()) {
        return Optional.empty();
      }
      scales[row] = MatrixValues.scale(m, row, 0);
    }
    return Optional.of(new ByteRelay(m, scales));
  }

  /** Whether one scale serves all rows. */
  boolean isPerTensor() {
    for (float scale : scales) {
      if (Float.floatToRawIntBits(scale) != Float.floatToRawIntBits(scales[0])) {
        return false;
      }
    }
    return true;
  }

  /** The codes under another name. */
  Tensor codes(String name, DType dtype, Arena arena) {
    Tensor codes = WriterSupport.allocate(arena, name, dtype, matrix.n(), matrix.k());
    MemorySegment.copy(matrix.codes(), 0, codes.data(), 0, codes.data().byteSize());
    return codes;
  }

  /** Whether two matrices of one shape stand for the same numbers, bit for bit. */
  static boolean isSame(Matrix matrix, Matrix other) {
    if (other.result() != matrix.result()) {
      return false;
    }
    int piece = (int) Math.min(matrix.k(), 1 << 12);
    float[] before = new float[piece];
    float[] after = new float[piece];
    for (long row = 0; row < matrix.n(); row++) {
      for (long column = 0; column < matrix.k(); column += piece) {
        int count = (int) Math.min(piece, matrix.k() - column);
        MatrixValues.row(matrix, row, column, count, before);
        MatrixValues.row(other, row, column, count, after);
        for (int i = 0; i < count; i++) {
          // all NaN are one
          if (Float.floatToIntBits(before[i]) != Float.floatToIntBits(after[i])) {
            return false;
          }
        }
      }
    }
    return true;
  }
}
