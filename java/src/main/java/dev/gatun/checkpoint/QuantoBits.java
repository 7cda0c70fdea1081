package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.QuantoBitsLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * quanto's 2- and 4-bit codes: {@code scale = (max - min) / (2^bits - 1)}, {@code shift = -min},
 * {@code code = round((w + shift) / scale)}, all in the weight's type. Source:
 * optimum/quanto/tensor/optimizers/max_optimizer.py.
 */
final class QuantoBits {
  private static final long TINYGEMM_GROUP = 128;

  private QuantoBits() {}

  /** The tensors of a weight, without numbers yet. */
  static LayerWriter.Blank blank(String layer, long n, long k, int bits, DType dtype, Arena arena) {
    long group = QuantoBitsLayout.groupOf(k);
    long columns = group == 0 ? k : group;
    long rows = n * k / columns;
    Tensor codes =
        WriterSupport.allocate(
            arena, layer + Quanto.PACKED, DType.U8, Math.ceilDiv(rows, 8L / bits), columns);
    Tensor scales = WriterSupport.allocate(arena, layer + Quanto.SCALE, dtype, rows, 1L);
    Tensor shifts = WriterSupport.allocate(arena, layer + Quanto.SHIFT, dtype, rows, 1L);
    Matrix matrix =
        new QuantoBitsLayout(bits, group)
            .matrix(n, k, codes.data(), Parts.values(scales), Parts.values(shifts));
    return LayerWriter.Blank.of(List.of(codes, scales, shifts), matrix);
  }

  /**
   * Fills the matrix of such a weight.
   *
   * @param hqq shifts by half-quadratic optimization instead of {@code -min}
   */
  static void quantize(Matrix m, Tensor weight, int bits, boolean hqq) {
    long k = m.k();
    Encoding type = Parts.encoding(weight);
    long group = QuantoBitsLayout.groupOf(k);
    long columns = group == 0 ? k : group;
    long rows = m.n() * k / columns;
    MemorySegment scales = m.scales().orElseThrow().data();
    MemorySegment shifts = m.offsets().orElseThrow().data();
    int largest = (1 << bits) - 1;
    for (long row = 0; row < rows; row++) {
      float min = Float.POSITIVE_INFINITY;
      float max = Float.NEGATIVE_INFINITY;
      for (long i = row * columns; i < (row + 1) * columns; i++) {
        float v = Numbers.get(type, weight.data(), i);
        min = Math.min(min, v);
        max = Math.max(max, v);
      }
      float scale = HalfFloat.round(type, HalfFloat.round(type, max - min) / largest);
      Numbers.put(type, scales, row, scale);
      Numbers.put(type, shifts, row, -min);
    }
    if (hqq) {
      new QuantoHqq(weight, scales, shifts, columns, m.encoding()).run();
    }
    for (long row = 0; row < rows; row++) {
      float scale = Numbers.get(type, scales, row);
      float shift = Numbers.get(type, shifts, row);
      Numbers.put(type, shifts, row, storedShift(type, bits, group, scale, shift));
      for (long i = row * columns; i < (row + 1) * columns; i++) {
        float sum = HalfFloat.round(type, Numbers.get(type, weight.data(), i) + shift);
        float q = HalfFloat.round(type, sum / scale);
        int code = Codebooks.encode(m.encoding(), q); // NaN of a constant group is 0
        MatrixValues.putCode(m, i / k, i % k, code);
      }
    }
  }

  /**
   * BF16 groups of 128 go through the form of a kernel that holds {@code 8 · scale - shift}: the
   * way there and back rounds twice.
   */
  private static float storedShift(Encoding type, int bits, long group, float scale, float shift) {
    if (type != Encoding.BF16 || bits != 4 || group != TINYGEMM_GROUP) {
      return shift;
    }
    float middle = HalfFloat.round(type, 8 * scale);
    return HalfFloat.round(type, middle - HalfFloat.round(type, middle - shift));
  }
}
