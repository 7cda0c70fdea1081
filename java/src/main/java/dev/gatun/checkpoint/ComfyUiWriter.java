package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.layout.ComfyFloat8Layout;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;

/**
 * Writes ComfyUI's {@code float8_e4m3fn}: {@code X.weight} with one F32 {@code X.weight_scale}, the
 * layers listed in {@code _quantization_metadata}. The scale is absmax / 448 in the weight's own
 * type, and codes come from the product with its rounded reciprocal, as comfy-kitchen's eager code
 * does it. A weight of zeros, which there ends in NaN, gets the scale 0 and codes 0.
 */
final class ComfyUiWriter implements LayerWriter {
  private static final float LARGEST = 448f;

  /** What {@code gatun quantize --format} offers. */
  static final Map<String, String> FORMATS =
      Map.of("float8_e4m3fn", "ComfyUI: 8-bit floats e4m3fn, one scale per tensor");

  ComfyUiWriter(String format) {}

  @Override
  public boolean accepts(Tensor weight) {
    return WriterSupport.isFloatMatrix(weight);
  }

  @Override
  public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    Encoding type = Parts.encoding(weight);
    Tensor codes = WriterSupport.allocate(arena, layer + Parts.WEIGHT, DType.F8_E4M3, n, k);
    Tensor scale = WriterSupport.allocate(arena, layer + ".weight_scale", DType.F32);
    Matrix matrix =
        new ComfyFloat8Layout(Encoding.F8_E4M3, true)
            .matrix(n, k, codes.data(), Optional.of(Parts.values(scale)), type);
    QuantizeRule rule = new QuantizeRule(type, true, LARGEST, 0, -LARGEST, LARGEST, false, 0);
    backend.quantize(matrix, rule, weight.data(), type);
    return new Quantized(List.of(codes, scale), matrix);
  }

  @Override
  public Map<String, String> metadata(List<Written> layers, List<String> copied) {
    String entries =
        layers.stream()
            .map(w -> PythonJson.string(w.layer()) + ": {\"format\": \"" + w.format() + "\"}")
            .collect(Collectors.joining(", "));
    return Map.of(ComfyUi.METADATA, "{\"format_version\": \"1.0\", \"layers\": {" + entries + "}}");
  }
}
