package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;

/**
 * ComfyUI's 8-bit floats with one scale: absmax / largest in the weight's own type; codes come from
 * the product with its rounded reciprocal. A weight of zeros, which in the library ends in NaN,
 * gets the scale 0 and codes 0.
 */
record ComfyUiFloat8(ComfyFormat format, String layer, long k, Encoding type)
    implements SharedScaleRows.Scheme {
  private QuantizeRule rule(boolean keepScales) {
    float largest = Fp8.max(format.codes().encoding().orElseThrow());
    return new QuantizeRule(type, true, largest, 0, -largest, largest, keepScales, 0);
  }

  private LayerWriter.Blank room(long rows, long columns, Arena arena) {
    return new ComfyUiBlank(layer, rows, columns, type, arena).bytes(format);
  }

  /** A weight of that one number has the scale that all have. */
  @Override
  public LayerWriter.Blank blank(long rows, float largest, Backend backend, Arena arena) {
    LayerWriter.Blank one = room(1, 1, arena);
    Tensor number = WriterSupport.allocate(arena, layer, DType.valueOf(type.name()), 1L, 1L);
    Numbers.put(type, number.data(), 0, largest);
    backend.quantize(one.matrix(), rule(false), number.data(), type);
    LayerWriter.Blank all = room(rows, k, arena);
    all.tensors().get(1).data().copyFrom(one.tensors().get(1).data());
    return all;
  }

  @Override
  public void fill(LayerWriter.Blank blank, Tensor rows, Backend backend) {
    backend.quantize(blank.matrix(), rule(true), rows.data(), type);
  }
}
