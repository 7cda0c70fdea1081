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
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;

/**
 * One weight in ComfyUI's bytes and block-scaled floats, as comfy-kitchen's eager code makes them.
 */
final class ComfyUiQuantizer {
  private static final float LARGEST_E4M3 = 448f;
  private static final float LARGEST_E2M1 = 6f;

  private final WeightRows rows;
  private final ComfyUiBlank blank;
  private final Encoding type;
  private final long n;
  private final int k;

  /**
   * Reads a weight.
   *
   * @param rotation of its rows; 0: none
   */
  ComfyUiQuantizer(String layer, Tensor weight, int rotation, Arena arena) {
    this.rows = new WeightRows(weight, rotation);
    this.type = rows.type();
    this.n = rows.n();
    this.k = rows.k();
    this.blank = new ComfyUiBlank(layer, n, k, type, arena);
  }

  /** {@link ComfyUiInt8} of rotated rows. */
  LayerWriter.Quantized rotatedInt8() {
    LayerWriter.Blank made = blank.bytes(ComfyFormat.INT8_CONVROT);
    Tensor codes = made.tensors().get(0);
    Tensor scales = made.tensors().get(1);
    float[] values = rows.room();
    for (long row = 0; row < n; row++) {
      rows.row(row, values);
      float scale = ComfyUiInt8.scale(WeightRows.largest(values, 0, k));
      Numbers.put(Encoding.F32, scales.data(), row, scale);
      float divisor = HalfFloat.round(type, scale);
      for (int i = 0; i < k; i++) {
        float q = HalfFloat.round(type, values[i] / divisor);
        codes
            .data()
            .set(ValueLayout.JAVA_BYTE, row * k + i, (byte) Codebooks.encode(Encoding.I8, q));
      }
    }
    return made.finished();
  }

  /**
   * The scale of an nvfp4 weight, rounded to the weight's type; all else is done in F32.
   *
   * @param largest magnitude of the weight
   */
  static float tensorScale(Encoding type, float largest) {
    return HalfFloat.round(type, largest / (LARGEST_E4M3 * LARGEST_E2M1));
  }

  /**
   * Fills in nvfp4's codes and the scales of its blocks.
   *
   * @param made with the scale of the tensor
   */
  static void nvfp4(LayerWriter.Blank made, WeightRows rows) {
    int block = (int) new ComfyBlockLayout(Encoding.F4_E2M1).block();
    Matrix m = made.matrix();
    float tensorScale = m.globalScale();
    Tensor scales = made.tensors().get(1);
    float[] values = rows.room();
    for (long row = 0; row < rows.n(); row++) {
      rows.row(row, values);
      for (int start = 0; start < values.length; start += block) {
        int end = Math.min(values.length, start + block);
        float ideal = WeightRows.largest(values, start, end) / LARGEST_E2M1 / tensorScale;
        int code = Fp8.encode(Encoding.F8_E4M3, Math.min(ideal, LARGEST_E4M3));
        long at = MatrixValues.scaleIndex(m, row, start);
        scales.data().set(ValueLayout.JAVA_BYTE, at, (byte) code);
        float scale = tensorScale * Fp8.decode(Encoding.F8_E4M3, code);
        for (int i = start; i < end; i++) {
          float q = scale == 0 || Float.isNaN(scale) ? 0 : values[i] / scale;
          MatrixValues.putCode(m, row, i, Codebooks.encode(Encoding.F4_E2M1, q));
        }
      }
    }
  }

  /** Exponents are rounded up; one too small for a float stands for a block that decodes to 0. */
  LayerWriter.Quantized mxfp8() {
    int block = (int) new ComfyBlockLayout(Encoding.F8_E4M3).block();
    LayerWriter.Blank made = blank.mxfp8();
    Matrix m = made.matrix();
    Tensor codes = made.tensors().get(0);
    Tensor scales = made.tensors().get(1);
    long columns = codes.shape().get(1);
    float[] values = rows.room();
    for (long row = 0; row < n; row++) {
      rows.row(row, values);
      for (int start = 0; start < k; start += block) {
        int end = Math.min(k, start + block);
        float largest = WeightRows.largest(values, start, end);
        int exponent = exponentAbove(largest / LARGEST_E4M3);
        long at = MatrixValues.scaleIndex(m, row, start);
        scales.data().set(ValueLayout.JAVA_BYTE, at, (byte) exponent);
        // A block whose scale decodes to 0 is divided by 0, unless it is all zeros.
        float scale = exponent == 0 ? 0 : Math.scalb(1f, exponent - 127);
        for (int i = start; i < end; i++) {
          float q = largest == 0 ? 0 : values[i] / scale;
          int code = Float.isNaN(q) ? 0xFF : Fp8.encodeSaturated(Encoding.F8_E4M3, q);
          codes.data().set(ValueLayout.JAVA_BYTE, row * columns + i, (byte) code);
        }
      }
    }
    return made.finished();
  }

  /** clamp(ceil(log2(x)) + 127, 0, 254), x being at least 2^-127. */
  private static int exponentAbove(float x) {
    double at = Math.max(x, 0x1p-127f);
    int exponent = Math.getExponent(at);
    boolean above = at > Math.scalb(1.0, exponent);
    return Math.clamp(exponent + (above ? 1 : 0) + 127, 0, 254);
  }
}
