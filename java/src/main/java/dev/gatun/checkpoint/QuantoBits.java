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
import java.util.List;

/**
 * quanto's 2- and 4-bit codes: {@code scale = (max - min) / (2^bits - 1)}, {@code shift = -min},
 * {@code code = round((w + shift) / scale)}, all in the weight's type. Source:
 * optimum/quanto/tensor/optimizers/max_optimizer.py.
 */
final class QuantoBits {
  private static final long TINYGEMM_GROUP = 128;

  private QuantoBits() {}

  static LayerWriter.Quantized quantize(String layer, Tensor weight, int bits, Arena arena) {
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    Encoding type = Parts.encoding(weight);
    long group = QuantoBitsLayout.groupOf(k);
    long columns = group == 0 ? k : group;
    long rows = n * k / columns;
    Tensor codes =
        WriterSupport.allocate(
            arena, layer + Quanto.PACKED, DType.U8, Math.ceilDiv(rows, 8L / bits), columns);
    Tensor scales = WriterSupport.allocate(arena, layer + Quanto.SCALE, weight.dtype(), rows, 1L);
    Tensor shifts = WriterSupport.allocate(arena, layer + Quanto.SHIFT, weight.dtype(), rows, 1L);
    QuantoBitsLayout layout = new QuantoBitsLayout(bits, group);
    Matrix m = layout.matrix(n, k, codes.data(), Parts.values(scales), Parts.values(shifts));
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
      Numbers.put(type, scales.data(), row, scale);
      Numbers.put(type, shifts.data(), row, storedShift(type, bits, group, scale, -min));
      for (long i = row * columns; i < (row + 1) * columns; i++) {
        float sum = HalfFloat.round(type, Numbers.get(type, weight.data(), i) - min);
        float q = HalfFloat.round(type, sum / scale);
        int code = Codebooks.encode(layout.encoding(), q); // NaN of a constant group is 0
        MatrixValues.putCode(m, i / k, i % k, code);
      }
    }
    return new LayerWriter.Quantized(List.of(codes, scales, shifts), m);
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
