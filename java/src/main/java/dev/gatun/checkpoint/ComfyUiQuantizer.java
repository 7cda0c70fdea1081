package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.ComfyBlockLayout;
import dev.gatun.layout.ComfyInt8Layout;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.List;

/** One weight in ComfyUI's integers and block-scaled floats, as comfy-kitchen's eager code does. */
final class ComfyUiQuantizer {
  private static final float LARGEST_E4M3 = 448f;
  private static final float LARGEST_E2M1 = 6f;
  private static final float SMALLEST_SCALE = 1e-30f;

  private final String layer;
  private final Tensor weight;
  private final Arena arena;
  private final Encoding type;
  private final long n;
  private final long k;

  ComfyUiQuantizer(String layer, Tensor weight, Arena arena) {
    this.layer = layer;
    this.weight = weight;
    this.arena = arena;
    this.type = Parts.encoding(weight);
    this.n = weight.shape().get(0);
    this.k = weight.shape().get(1);
  }

  /** Quotients are rounded to the weight's type before they are rounded to integers. */
  LayerWriter.Quantized int8(boolean perRow) {
    Tensor codes = WriterSupport.allocate(arena, layer + Parts.WEIGHT, DType.I8, n, k);
    Tensor scales =
        perRow
            ? WriterSupport.allocate(arena, layer + ".weight_scale", DType.F32, n, 1L)
            : WriterSupport.allocate(arena, layer + ".weight_scale", DType.F32);
    float all = perRow ? 0 : largest(0, n * k);
    for (long row = 0; row < n; row++) {
      float largest = perRow ? largest(row * k, k) : all;
      float scale = Math.max(largest / 127f, SMALLEST_SCALE);
      Numbers.put(Encoding.F32, scales.data(), perRow ? row : 0, scale);
      float divisor = HalfFloat.round(type, scale);
      for (long i = row * k; i < (row + 1) * k; i++) {
        float q = HalfFloat.round(type, value(i) / divisor);
        codes.data().set(ValueLayout.JAVA_BYTE, i, (byte) Codebooks.encode(Encoding.I8, q));
      }
    }
    Matrix matrix =
        new ComfyInt8Layout(perRow, 0).matrix(n, k, codes.data(), Parts.values(scales), type);
    return new LayerWriter.Quantized(List.of(codes, scales), matrix);
  }

  /** The tensor's scale is rounded to the weight's type, all else is done in F32. */
  LayerWriter.Quantized nvfp4() {
    ComfyBlockLayout layout = new ComfyBlockLayout(Encoding.F4_E2M1);
    long rows = roundUp(n, layout.block());
    long columns = roundUp(k, layout.block());
    Tensor codes = WriterSupport.allocate(arena, layer + Parts.WEIGHT, DType.U8, rows, columns / 2);
    Tensor scales = blockScales(DType.F8_E4M3, rows, columns / layout.block());
    Tensor global = WriterSupport.allocate(arena, layer + ".weight_scale_2", DType.F32);
    float tensorScale = HalfFloat.round(type, largest(0, n * k) / (LARGEST_E4M3 * LARGEST_E2M1));
    Numbers.put(Encoding.F32, global.data(), 0, tensorScale);
    Matrix m =
        layout.matrix(n, k, columns / 2, codes.data(), scales.data(), tensorScale, type, arena);
    for (long row = 0; row < n; row++) {
      for (long start = 0; start < k; start += layout.block()) {
        long end = Math.min(k, start + layout.block());
        float ideal = largest(row * k + start, end - start) / LARGEST_E2M1 / tensorScale;
        int code = Fp8.encode(Encoding.F8_E4M3, Math.min(ideal, LARGEST_E4M3));
        long at = MatrixValues.scaleIndex(m, row, start);
        scales.data().set(ValueLayout.JAVA_BYTE, at, (byte) code);
        float scale = tensorScale * Fp8.decode(Encoding.F8_E4M3, code);
        for (long i = start; i < end; i++) {
          float q = scale == 0 || Float.isNaN(scale) ? 0 : value(row * k + i) / scale;
          MatrixValues.putCode(m, row, i, Codebooks.encode(Encoding.F4_E2M1, q));
        }
      }
    }
    return new LayerWriter.Quantized(List.of(codes, scales, global), m);
  }

  /** Exponents are rounded up; one too small for a float stands for a block that decodes to 0. */
  LayerWriter.Quantized mxfp8() {
    ComfyBlockLayout layout = new ComfyBlockLayout(Encoding.F8_E4M3);
    long rows = roundUp(n, layout.block());
    long columns = roundUp(k, layout.block());
    Tensor codes =
        WriterSupport.allocate(arena, layer + Parts.WEIGHT, DType.F8_E4M3, rows, columns);
    Tensor scales = blockScales(DType.F8_E8M0, rows, columns / layout.block());
    Matrix bare = layout.matrix(n, k, columns, codes.data(), scales.data(), 1f, type, arena);
    for (long row = 0; row < n; row++) {
      for (long start = 0; start < k; start += layout.block()) {
        long end = Math.min(k, start + layout.block());
        float largest = largest(row * k + start, end - start);
        int exponent = exponentAbove(largest / LARGEST_E4M3);
        long at = MatrixValues.scaleIndex(bare, row, start);
        scales.data().set(ValueLayout.JAVA_BYTE, at, (byte) exponent);
        // A block whose scale decodes to 0 is divided by 0, unless it is all zeros.
        float scale = exponent == 0 ? 0 : Math.scalb(1f, exponent - 127);
        for (long i = start; i < end; i++) {
          float q = largest == 0 ? 0 : value(row * k + i) / scale;
          int code = Float.isNaN(q) ? 0xFF : Fp8.encodeSaturated(Encoding.F8_E4M3, q);
          codes.data().set(ValueLayout.JAVA_BYTE, row * columns + i, (byte) code);
        }
      }
    }
    Matrix matrix = layout.matrix(n, k, columns, codes.data(), scales.data(), 1f, type, arena);
    return new LayerWriter.Quantized(List.of(codes, scales), matrix);
  }

  /** clamp(ceil(log2(x)) + 127, 0, 254), x being at least 2^-127. */
  private static int exponentAbove(float x) {
    double at = Math.max(x, 0x1p-127f);
    int exponent = Math.getExponent(at);
    boolean above = at > Math.scalb(1.0, exponent);
    return Math.clamp(exponent + (above ? 1 : 0) + 127, 0, 254);
  }

  private Tensor blockScales(DType type, long rows, long columns) {
    return WriterSupport.allocate(
        arena, layer + ".weight_scale", type, roundUp(rows, 128), roundUp(columns, 4));
  }

  private float value(long index) {
    return Numbers.get(type, weight.data(), index);
  }

  private float largest(long first, long count) {
    float largest = 0;
    for (long i = first; i < first + count; i++) {
      largest = Math.max(largest, Math.abs(value(i)));
    }
    return largest;
  }

  private static long roundUp(long size, long multiple) {
    return Math.multiplyExact(Math.ceilDiv(size, multiple), multiple);
  }
}
