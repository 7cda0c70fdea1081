package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.ScaleMethod;
import dev.gatun.kernel.Scaling;
import dev.gatun.kernel.codec.Magnitudes;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.LongFunction;
import java.util.stream.Collectors;

/**
 * Writes ComfyUI's weights under its names, with the codes and scales that comfy-kitchen's eager
 * code computes. Each layer is marked by a tensor or by an entry of {@code _quantization_metadata}.
 */
final class ComfyUiWriter implements LayerWriter {
  private final ComfyFormat format;

  ComfyUiWriter(String format) {
    this.format = ComfyFormat.named(format);
  }

  @Override
  public boolean accepts(Tensor weight) {
    return WriterSupport.isFloatMatrix(weight) && weight.shape().get(1) % format.columns() == 0;
  }

  @Override
  public Optional<String> refuses(Scaling scaling) {
    boolean fits = scaling.scale().kind() != ScaleMethod.Kind.ABSMAX;
    return switch (format) {
      case MXFP8 ->
          fits
              ? Optional.of("its scales are powers of two, the one above absmax / 448")
              : Optional.empty();
      case INT8_CONVROT, CONVROT_W4A4, ASYM_W4A8_INT8 ->
          scaling.isDefault()
              ? Optional.empty()
              : Optional.of("its weights are rotated before they are quantized");
      default -> LayerWriter.super.refuses(scaling);
    };
  }

  @Override
  public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
    int rotation = format == ComfyFormat.INT8_CONVROT ? ComfyFormat.ROTATION : 0;
    ComfyUiQuantizer quantizer = new ComfyUiQuantizer(layer, weight, rotation, arena);
    ComfyUiFourBit fourBit = new ComfyUiFourBit(layer, weight, arena);
    return switch (format) {
      case INT8_ROW -> ComfyUiInt8.byRows(layer, weight, backend, arena);
      case INT8_CONVROT -> quantizer.rotatedInt8();
      case MXFP8 -> quantizer.mxfp8();
      case CONVROT_W4A4 -> fourBit.rotated();
      case ASYM_W4A8_INT8 -> fourBit.codebook();
      case AWQ_W4A16 -> fourBit.awq();
      case INT8, FLOAT8_E4M3FN, FLOAT8_E5M2, SCALED_FP8, NVFP4 ->
          shared(layer, weight, backend, arena);
    };
  }

  @Override
  public Optional<RowQuantizer> byRows(String layer, Tensor weight) {
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    LongFunction<List<SafetensorsWriter.Entry>> tensors =
        rows -> ComfyUiBlank.entries(format, layer, rows, k);
    SharedScaleRows.Scheme scheme = scheme(layer, k, Parts.encoding(weight));
    String codes = layer + Parts.WEIGHT;
    return switch (format) {
      case INT8, FLOAT8_E4M3FN, FLOAT8_E5M2, SCALED_FP8 ->
          Optional.of(new SharedScaleRows(n, 1, tensors, Set.of(codes), scheme));
      case NVFP4 ->
          Optional.of(
              new SharedScaleRows(
                  n,
                  ComfyUiBlank.TILE_ROWS,
                  tensors,
                  Set.of(codes, layer + ".weight_scale"),
                  scheme));
      case INT8_ROW, INT8_CONVROT, CONVROT_W4A4, MXFP8 ->
          Optional.of(
              new SlicedRows(
                  n,
                  format == ComfyFormat.MXFP8 ? ComfyUiBlank.TILE_ROWS : 1,
                  tensors,
                  (rows, backend, arena) -> quantize(layer, rows, backend, arena),
                  arena ->
                      List.of(WriterSupport.text(arena, layer + ComfyUi.MARK, format.mark()))));
      default -> Optional.empty(); // a codebook of all rows, or groups before rows
    };
  }

  private SharedScaleRows.Scheme scheme(String layer, long k, Encoding type) {
    return switch (format) {
      case INT8 -> new ComfyUiInt8(layer, k, type);
      case NVFP4 -> new ComfyUiNvfp4(layer, k, type);
      default -> new ComfyUiFloat8(format, layer, k, type);
    };
  }

  private Quantized shared(String layer, Tensor weight, Backend backend, Arena arena) {
    Encoding type = Parts.encoding(weight);
    SharedScaleRows.Scheme scheme = scheme(layer, weight.shape().get(1), type);
    float largest = Magnitudes.largest(type, weight.data(), 0, weight.elements());
    Blank made = scheme.blank(weight.shape().get(0), largest, backend, arena);
    scheme.fill(made, weight, backend);
    return made.finished();
  }

  @Override
  public Optional<Blank> blank(String layer, QuantizedTensor weight, Arena arena) {
    Matrix m = weight.matrix();
    if (m.k() % format.columns() != 0) {
      return Optional.empty();
    }
    ComfyUiBlank blank = new ComfyUiBlank(layer, m.n(), m.k(), weight.dtype(), arena);
    return switch (format) {
      case MXFP8 -> Optional.of(blank.mxfp8());
      case NVFP4 -> Optional.of(blank.nvfp4(m.globalScale()));
      case CONVROT_W4A4 -> Optional.of(blank.rotatedInt4());
      case ASYM_W4A8_INT8 -> m.codebook().map(ComfyUiWriter::floats).map(blank::codebook);
      case AWQ_W4A16 -> Optional.of(blank.awq());
      default -> Optional.of(blank.bytes(format));
    };
  }

  private static float[] floats(MemorySegment codebook) {
    float[] values = new float[16];
    for (int i = 0; i < values.length; i++) {
      values[i] = Numbers.get(Encoding.F32, codebook, i);
    }
    return values;
  }

  @Override
  public Optional<String> inputScale(String layer) {
    return Optional.of(
        layer + (format == ComfyFormat.SCALED_FP8 ? ".scale_input" : ".input_scale"));
  }

  @Override
  public Optional<String> inputMultiplier(String layer) {
    return format == ComfyFormat.SCALED_FP8
        ? Optional.empty()
        : Optional.of(layer + Checkpoint.INPUT_MULTIPLIER);
  }

  /** The legacy form's mark is for the whole file, under the prefix that all names share. */
  @Override
  public List<Tensor> once(List<Written> layers) {
    if (!isLegacy(layers)) {
      return List.of();
    }
    String model = "model.diffusion_model.";
    boolean prefixed = layers.stream().allMatch(written -> written.layer().startsWith(model));
    String name = (prefixed ? model : "") + ComfyUi.LEGACY_MARK;
    return List.of(
        new Tensor(name, DType.F8_E4M3, List.of(0L), MemorySegment.ofArray(new byte[0])));
  }

  private static boolean isLegacy(List<Written> layers) {
    long legacy =
        layers.stream()
            .filter(w -> ComfyFormat.named(w.format()) == ComfyFormat.SCALED_FP8)
            .count();
    if (legacy != 0 && legacy != layers.size()) {
      throw new GatunException(
          "comfyui: found layers in the legacy form beside others, expected all or none of them");
    }
    return legacy != 0;
  }

  @Override
  public Map<String, String> metadata(List<Written> layers, List<String> copied) {
    if (isLegacy(layers)) {
      return Map.of();
    }
    String entries =
        layers.stream()
            .filter(written -> !ComfyFormat.named(written.format()).isMarkedByTensor())
            .map(
                written ->
                    PythonJson.string(written.layer())
                        + ": "
                        + ComfyFormat.named(written.format()).mark())
            .collect(Collectors.joining(", "));
    if (entries.isEmpty()) {
      return Map.of();
    }
    return Map.of(ComfyUi.METADATA, "{\"format_version\": \"1.0\", \"layers\": {" + entries + "}}");
  }
}
