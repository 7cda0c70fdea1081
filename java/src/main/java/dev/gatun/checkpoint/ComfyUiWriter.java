package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.ComfyFloat8Layout;
import dev.gatun.layout.ComfyInt8Layout;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Collectors;

/**
 * Writes ComfyUI's weights under its names, the layers listed in {@code _quantization_metadata},
 * with the codes and scales that comfy-kitchen's eager code computes.
 */
final class ComfyUiWriter implements LayerWriter {
  /** What {@code gatun quantize --format} offers. */
  static final Map<String, String> FORMATS =
      new TreeMap<>(
          Map.of(
              "float8_e4m3fn", "ComfyUI: 8-bit floats e4m3fn, one scale per tensor",
              "float8_e5m2", "ComfyUI: 8-bit floats e5m2, one scale per tensor",
              "comfy-int8", "ComfyUI int8_tensorwise: 8-bit integers, one scale per tensor",
              "comfy-int8-row", "ComfyUI int8_tensorwise: 8-bit integers, one scale per row",
              "comfy-mxfp8", "ComfyUI mxfp8: 8-bit floats, one power of two per 32 weights",
              "comfy-nvfp4", "ComfyUI nvfp4: 4-bit floats, one 8-bit float scale per 16 weights"));

  private final String format;

  ComfyUiWriter(String format) {
    this.format = format;
  }

  @Override
  public boolean accepts(Tensor weight) {
    return WriterSupport.isFloatMatrix(weight);
  }

  @Override
  public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
    ComfyUiQuantizer quantizer = new ComfyUiQuantizer(layer, weight, arena);
    return switch (format) {
      case "comfy-int8" -> quantizer.int8(false);
      case "comfy-int8-row" -> quantizer.int8(true);
      case "comfy-mxfp8" -> quantizer.mxfp8();
      case "comfy-nvfp4" -> quantizer.nvfp4();
      default -> float8(layer, weight, backend, arena);
    };
  }

  /** ComfyUI's own name. */
  private static String algorithm(String format) {
    return switch (format) {
      case "comfy-int8", "comfy-int8-row" -> "int8_tensorwise";
      case "comfy-mxfp8" -> "mxfp8";
      case "comfy-nvfp4" -> "nvfp4";
      default -> format;
    };
  }

  /**
   * The scale is absmax / largest in the weight's own type, and codes come from the product with
   * its rounded reciprocal. A weight of zeros, which in the library ends in NaN, gets the scale 0
   * and codes 0.
   */
  private Quantized float8(String layer, Tensor weight, Backend backend, Arena arena) {
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    Encoding type = Parts.encoding(weight);
    DType dtype = format.equals("float8_e5m2") ? DType.F8_E5M2 : DType.F8_E4M3;
    Tensor codes = WriterSupport.allocate(arena, layer + Parts.WEIGHT, dtype, n, k);
    Tensor scale = WriterSupport.allocate(arena, layer + ".weight_scale", DType.F32);
    Encoding encoding = Parts.encoding(codes);
    Matrix matrix =
        new ComfyFloat8Layout(encoding, true)
            .matrix(n, k, codes.data(), Optional.of(Parts.values(scale)), type);
    float largest = Fp8.max(encoding);
    QuantizeRule rule = new QuantizeRule(type, true, largest, 0, -largest, largest, false, 0);
    backend.quantize(matrix, rule, weight.data(), type);
    return new Quantized(List.of(codes, scale), matrix);
  }

  /** Bytes with one scale, or integers with one per row, keep their codes. */
  @Override
  public Optional<Quantized> relay(String layer, QuantizedTensor weight, Arena arena) {
    DType dtype =
        switch (format) {
          case "comfy-int8", "comfy-int8-row" -> DType.I8;
          case "float8_e4m3fn" -> DType.F8_E4M3;
          case "float8_e5m2" -> DType.F8_E5M2;
          default -> null;
        };
    if (dtype == null) {
      return Optional.empty();
    }
    boolean perRow = format.equals("comfy-int8-row");
    return ByteRelay.of(weight, dtype.encoding().orElseThrow())
        .filter(bytes -> perRow || bytes.isPerTensor())
        .map(bytes -> relaid(layer, bytes, dtype, perRow, weight.dtype(), arena))
        .filter(quantized -> ByteRelay.isSame(weight.matrix(), quantized.matrix()));
  }

  private static Quantized relaid(
      String layer, ByteRelay bytes, DType dtype, boolean perRow, Encoding result, Arena arena) {
    long n = bytes.matrix.n();
    long k = bytes.matrix.k();
    Tensor codes = bytes.codes(layer + Parts.WEIGHT, dtype, arena);
    Tensor scales =
        perRow
            ? WriterSupport.allocate(arena, layer + ".weight_scale", DType.F32, n, 1L)
            : WriterSupport.allocate(arena, layer + ".weight_scale", DType.F32);
    for (int i = 0; i < scales.elements(); i++) {
      Numbers.put(Encoding.F32, scales.data(), i, bytes.scales[i]);
    }
    Matrix.Values values = Parts.values(scales);
    Matrix matrix =
        dtype == DType.I8
            ? new ComfyInt8Layout(perRow, 0).matrix(n, k, codes.data(), values, result)
            : new ComfyFloat8Layout(Parts.encoding(codes), true)
                .matrix(n, k, codes.data(), Optional.of(values), result);
    return new Quantized(List.of(codes, scales), matrix);
  }

  @Override
  public Map<String, String> metadata(List<Written> layers, List<String> copied) {
    String entries =
        layers.stream()
            .map(
                written ->
                    PythonJson.string(written.layer())
                        + ": {\"format\": \""
                        + algorithm(written.format())
                        + "\"}")
            .collect(Collectors.joining(", "));
    return Map.of(ComfyUi.METADATA, "{\"format_version\": \"1.0\", \"layers\": {" + entries + "}}");
  }
}
