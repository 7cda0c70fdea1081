package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.codec.Magnitudes;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;

/**
 * ComfyUI's 8-bit integers: the scale is absmax / 127 in F32, and quotients by it, rounded to the
 * weight's type, are rounded to that type before they are rounded to integers.
 */
record ComfyUiInt8(String layer, long k, Encoding type) implements SharedScaleRows.Scheme {
  private static final float LARGEST = 127f;
  private static final float SMALLEST_SCALE = 1e-30f;

  @Override
  public LayerWriter.Blank blank(long rows, float largest, Backend backend, Arena arena) {
    LayerWriter.Blank blank = new ComfyUiBlank(layer, rows, k, type, arena).bytes(ComfyFormat.INT8);
    Numbers.put(Encoding.F32, blank.tensors().get(1).data(), 0, scale(largest));
    return blank;
  }

  /** absmax / 127, and never zero. */
  static float scale(float largest) {
    return Math.max(largest / LARGEST, SMALLEST_SCALE);
  }

  @Override
  public void fill(LayerWriter.Blank blank, Tensor rows, Backend backend) {
    encode(blank, rows, backend);
  }

  private static void encode(LayerWriter.Blank blank, Tensor rows, Backend backend) {
    Encoding type = Parts.encoding(rows);
    QuantizeRule rule = new QuantizeRule(type, false, 1, 0, -128f, LARGEST, true, -1);
    backend.quantize(blank.matrix().toBuilder().arithmetic(type).build(), rule, rows.data(), type);
  }

  /** With a scale for each row. */
  static LayerWriter.Quantized byRows(String layer, Tensor weight, Backend backend, Arena arena) {
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    Encoding type = Parts.encoding(weight);
    LayerWriter.Blank blank =
        new ComfyUiBlank(layer, n, k, type, arena).bytes(ComfyFormat.INT8_ROW);
    for (long row = 0; row < n; row++) {
      float largest = Magnitudes.largest(type, weight.data(), row * k, k);
      Numbers.put(Encoding.F32, blank.tensors().get(1).data(), row, scale(largest));
    }
    encode(blank, weight, backend);
    return blank.finished();
  }
}
