package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;

/**
 * One weight in ComfyUI's 4-bit integers: rotated ones with one scale per row or with a codebook,
 * as comfy-kitchen's eager code makes them, and {@code awq_w4a16}, which that only reads.
 */
final class ComfyUiFourBit {
  private static final float LARGEST_I4 = 7f;
  private static final float SMALLEST_LARGEST = 1e-10f;
  private static final float SMALLEST = 1e-8f;
  private static final int GROUP = ComfyFormat.CODEBOOK_GROUP;

  /** How often scales and codes are fitted to each other. */
  private static final int REFINEMENTS = 2;

  private final String layer;
  private final Tensor weight;
  private final Arena arena;

  ComfyUiFourBit(String layer, Tensor weight, Arena arena) {
    this.layer = layer;
    this.weight = weight;
    this.arena = arena;
  }

  private ComfyUiBlank blank(WeightRows rows) {
    return new ComfyUiBlank(layer, rows.n(), rows.k(), rows.type(), arena);
  }

  /** {@code scale = largest / 7}, {@code code = round(w / scale)}, in the weight's type. */
  LayerWriter.Quantized rotated() {
    WeightRows rows = new WeightRows(weight, ComfyFormat.ROTATION);
    LayerWriter.Blank made = blank(rows).rotatedInt4();
    Matrix m = made.matrix();
    Encoding type = rows.type();
    float smallest = HalfFloat.round(type, SMALLEST_LARGEST);
    float[] values = rows.room();
    for (long row = 0; row < rows.n(); row++) {
      rows.row(row, values);
      float largest = Math.max(WeightRows.largest(values, 0, values.length), smallest);
      float scale = HalfFloat.round(type, largest / LARGEST_I4);
      Numbers.put(Encoding.F32, made.tensors().get(1).data(), row, scale);
      for (int i = 0; i < values.length; i++) {
        float q = HalfFloat.round(type, values[i] / scale);
        q = Math.clamp(Float.isNaN(q) ? 0 : q, -LARGEST_I4, LARGEST_I4);
        MatrixValues.putCode(m, row, i, Codebooks.encode(Encoding.I4, q));
      }
    }
    return made.finished();
  }

  /**
   * Scales and codes of each group are fitted to each other; then the scales are rounded to 8 bits
   * relative to their row's, and the codes are chosen once more among what these give.
   */
  LayerWriter.Quantized codebook() {
    WeightRows rows = new WeightRows(weight, ComfyFormat.ROTATION);
    float[] codebook = ComfyCodebook.of(rows);
    LayerWriter.Blank made = blank(rows).codebook(codebook);
    float[] values = rows.room();
    for (long row = 0; row < rows.n(); row++) {
      codebookRow(made, row, rows.row(row, values), codebook);
    }
    return made.finished();
  }

  private static void codebookRow(
      LayerWriter.Blank made, long row, float[] values, float[] codebook) {
    int groups = values.length / GROUP;
    float[] scales = new float[groups];
    float largest = 0;
    for (int g = 0; g < groups; g++) {
      scales[g] = fitted(values, g * GROUP, codebook);
      for (int i = g * GROUP; i < (g + 1) * GROUP; i++) {
        float near = codebook[nearest(codebook, values[i] / scales[g])];
        largest = Math.max(largest, Math.abs(near * scales[g]));
      }
    }
    float rowScale = Math.max(largest / 127f, SMALLEST);
    Numbers.put(Encoding.F32, made.tensors().get(2).data(), row, rowScale);
    float[] levels = new float[codebook.length];
    for (int g = 0; g < groups; g++) {
      int code = Fp8.encode(Encoding.F8_E4M3, scales[g] / rowScale);
      Numbers.put(
          Encoding.F8_E4M3,
          made.tensors().get(1).data(),
          row * groups + g,
          Fp8.decode(Encoding.F8_E4M3, code));
      for (int i = 0; i < levels.length; i++) {
        levels[i] = MatrixValues.whole(codebook[i] * Fp8.decode(Encoding.F8_E4M3, code));
      }
      for (int i = g * GROUP; i < (g + 1) * GROUP; i++) {
        MatrixValues.putCode(made.matrix(), row, i, nearest(levels, values[i] / rowScale));
      }
    }
  }

  /** The scale of a group: Σ w·c / Σ c², c being the nearest values of the codebook. */
  private static float fitted(float[] values, int from, float[] codebook) {
    float scale = Math.max(WeightRows.largest(values, from, from + GROUP), SMALLEST);
    float[] products = new float[GROUP];
    float[] squares = new float[GROUP];
    for (int pass = 0; pass < REFINEMENTS; pass++) {
      for (int i = 0; i < GROUP; i++) {
        float c = codebook[nearest(codebook, values[from + i] / scale)];
        products[i] = values[from + i] * c;
        squares[i] = c * c;
      }
      scale = Math.max(sum(products) / Math.max(sum(squares), SMALLEST), SMALLEST);
    }
    return scale;
  }

  /** In the order of PyTorch on eight lanes: the row scales show the last bit. */
  private static float sum(float[] values) {
    float sum = 0;
    for (int i = 0; i < GROUP / 2; i++) {
      sum += values[i] + values[i + GROUP / 2];
    }
    return sum;
  }

  /** The index of the nearest of rising values; of two as near, the lower one. */
  static int nearest(float[] rising, float value) {
    int above = 0;
    while (above < rising.length && rising[above] < value) {
      above++;
    }
    int low = Math.max(0, above - 1);
    int high = Math.min(above, rising.length - 1);
    return Math.abs(value - rising[high]) < Math.abs(value - rising[low]) ? high : low;
  }

  /**
   * From the smallest to the largest number of a group: {@code scale = (max - min) / 15}, {@code
   * offset = min + 8 · scale}, {@code code = round((w - offset) / scale) + 8}.
   */
  LayerWriter.Quantized awq() {
    WeightRows rows = new WeightRows(weight, 0);
    LayerWriter.Blank made = blank(rows).awq();
    Matrix m = made.matrix();
    Matrix.Values scales = m.scales().orElseThrow();
    Matrix.Values offsets = m.offsets().orElseThrow();
    float[] values = rows.room();
    for (long row = 0; row < rows.n(); row++) {
      rows.row(row, values);
      for (int start = 0; start < values.length; start += ComfyFormat.AWQ_GROUP) {
        int end = start + ComfyFormat.AWQ_GROUP;
        float min = WeightRows.min(values, start, end);
        float max = WeightRows.max(values, start, end);
        long at = MatrixValues.index(m, row, start);
        Numbers.put(scales.type(), scales.data(), at, (max - min) / 15f);
        float scale = Numbers.get(scales.type(), scales.data(), at);
        Numbers.put(offsets.type(), offsets.data(), at, min + 8 * scale);
        float offset = Numbers.get(offsets.type(), offsets.data(), at);
        for (int i = start; i < end; i++) {
          float q = scale == 0 ? 0 : (values[i] - offset) / scale;
          MatrixValues.putCode(m, row, i, Codebooks.encode(Encoding.U4, q + 8));
        }
      }
    }
    return made.finished();
  }
}
