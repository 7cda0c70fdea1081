package dev.gatun.checkpoint;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.ComfyFloat8Layout;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * ComfyUI's quantized checkpoints: layers marked by {@code _quantization_metadata} in the
 * container's metadata or by a tensor {@code X.comfy_quant}, legacy files with {@code scaled_fp8}
 * and {@code X.scale_weight}, and 8-bit float tensors without any mark, which are read as they are
 * (scale 1). Source: ComfyUI's QUANTIZATION.md, comfy/ops.py and utils.py.
 *
 * <p>The type that a layer had before quantization is not stored. It is taken from the layer's
 * bias, else from the checkpoint's other float tensors (the most frequent type), else it is F32.
 */
public final class ComfyUi implements CheckpointFormat {
  static final String METADATA = "_quantization_metadata";
  private static final String MARK = ".comfy_quant";
  private static final String LEGACY_MARK = "scaled_fp8";
  private static final String LEGACY_SCALE = ".scale_weight";
  private static final String WRITES = "float8_e4m3fn";

  /** QUANT_ALGOS entries that are recognised and not read. */
  private static final Set<String> NOT_YET =
      Set.of("mxfp8", "nvfp4", "int8_tensorwise", "convrot_w4a4", "asym_w4a8_int8", "awq_w4a16");

  /**
   * Endings that make an 8-bit float tensor another format's weight rather than one without a
   * scale.
   */
  private static final List<String> FOREIGN_SCALES =
      List.of("_scale", "_scale_inv", "_scale_2", "._scale");

  /** For {@link java.util.ServiceLoader}. */
  public ComfyUi() {}

  @Override
  public String name() {
    return "comfyui";
  }

  /** Last: a lone 8-bit float tensor is ComfyUI's only when nobody else claims it. */
  @Override
  public int order() {
    return 1000;
  }

  @Override
  public Found read(CheckpointSource source) {
    return new Reader(source).read();
  }

  /** ComfyUI dequantizes in the type that is asked for. */
  @Override
  public QuantizedTensor withDtype(QuantizedTensor layer, Encoding dtype) {
    if (!(layer.layout() instanceof ComfyFloat8Layout layout)) {
      return layer;
    }
    Matrix m = layer.matrix();
    Matrix matrix = layout.matrix(m.n(), m.k(), m.codes(), m.scales(), dtype);
    return new QuantizedTensor(layer.name(), layer.shape(), layout, layer.parts(), matrix, dtype);
  }

  @Override
  public Set<String> metadataKeys() {
    return Set.of(METADATA);
  }

  @Override
  public Map<String, String> writes() {
    return Map.of(WRITES, "ComfyUI: 8-bit floats e4m3fn, one scale per tensor");
  }

  @Override
  public LayerWriter writer(String format) {
    if (!format.equals(WRITES)) {
      throw new GatunException("no format '" + format + "' in comfyui, expected " + WRITES);
    }
    return new ComfyUiWriter();
  }

  /** One pass over one checkpoint. */
  private static final class Reader {
    private final CheckpointSource source;
    private final Parts parts;
    private final List<QuantizedTensor> layers = new ArrayList<>();
    private final Set<String> names = new HashSet<>();
    private final Map<String, String> side = new LinkedHashMap<>();
    private final Map<String, String> unsupported = new LinkedHashMap<>();
    private final Encoding otherType;

    Reader(CheckpointSource source) {
      this.source = source;
      this.parts = new Parts(source);
      this.otherType = mostFrequentType(source);
    }

    Found read() {
      Map<String, String> marked = new LinkedHashMap<>();
      source.tensors().values().stream()
          .filter(tensor -> tensor.name().endsWith(MARK))
          .forEach(tensor -> mark(tensor, marked));
      String metadata = source.metadata().get(METADATA);
      if (metadata != null) {
        marked.putAll(fromMetadata(metadata));
      } else if (marked.isEmpty()) {
        readLegacy();
      }
      marked.forEach(this::readMarked);
      source.tensors().values().forEach(this::readUnmarked);
      return new Found(layers, side, unsupported);
    }

    private void mark(Tensor tensor, Map<String, String> marked) {
      String layer = tensor.name().substring(0, tensor.name().length() - MARK.length());
      marked.put(layer, format(layer, parts.json(tensor)));
      side.put(tensor.name(), "ComfyUI's mark of a quantized layer");
    }

    private Map<String, String> fromMetadata(String text) {
      JsonNode root;
      try {
        root = Json.tree(text);
      } catch (JsonProcessingException e) {
        throw new GatunException(
            source.path()
                + ": metadata '"
                + METADATA
                + "': found "
                + Json.reason(e)
                + ", expected a JSON object",
            e);
      }
      JsonNode entries = root.path("layers");
      if (!entries.isObject()) {
        throw Problem.tensor(
            source.path(), METADATA, "no object 'layers'", "one entry a quantized layer");
      }
      Map<String, String> marked = new LinkedHashMap<>();
      entries
          .properties()
          .forEach(entry -> marked.put(entry.getKey(), format(entry.getKey(), entry.getValue())));
      return marked;
    }

    /** The entry is an object with {@code format}, or with some writers the bare name of it. */
    private String format(String layer, JsonNode entry) {
      JsonNode format = entry.isTextual() ? entry : entry.path("format");
      if (!format.isTextual()) {
        throw Problem.tensor(source.path(), layer, "no 'format' in its ComfyUI mark", "a string");
      }
      return format.asText();
    }

    private void readMarked(String layer, String format) {
      if (!format.equals("float8_e4m3fn") && !format.equals("float8_e5m2")) {
        String kind = NOT_YET.contains(format) ? "ComfyUI format " : "unknown ComfyUI format ";
        unsupported.put(layer, kind + Problem.quote(format) + " is not supported yet");
        for (String name : source.tensors().keySet()) {
          if (name.startsWith(layer + ".") && !name.endsWith(".bias")) {
            side.putIfAbsent(
                name, "part of a ComfyUI " + Problem.quote(format) + " weight, not supported yet");
          }
        }
        return;
      }
      Tensor weight =
          parts.require(layer + Parts.WEIGHT, "the weight of a layer that is marked as " + format);
      parts.dtype(weight, format.equals("float8_e5m2") ? DType.F8_E5M2 : DType.F8_E4M3);
      Tensor scale =
          parts.require(layer + ".weight_scale", "the F32 scale of a " + format + " weight");
      add(layer, weight, Optional.of(scale));
      note(layer + ".input_scale", "scale of the activations, for products in 8-bit floats");
    }

    private void readLegacy() {
      for (Tensor tensor : source.tensors().values()) {
        String name = tensor.name();
        if (name.equals(LEGACY_MARK) || name.endsWith("." + LEGACY_MARK)) {
          side.put(name, "mark of a legacy ComfyUI FP8 checkpoint");
        } else if (name.endsWith(LEGACY_SCALE)) {
          String layer = name.substring(0, name.length() - LEGACY_SCALE.length());
          Tensor weight =
              parts.require(
                  layer + Parts.WEIGHT, "the weight that " + Problem.quote(name) + " scales");
          parts.dtype(weight, DType.F8_E4M3, DType.F8_E5M2);
          add(layer, weight, Optional.of(tensor));
          note(layer + ".scale_input", "scale of the activations, for products in 8-bit floats");
        }
      }
    }

    /** An 8-bit float tensor that nothing marks. */
    private void readUnmarked(Tensor tensor) {
      boolean float8 = tensor.dtype() == DType.F8_E4M3 || tensor.dtype() == DType.F8_E5M2;
      String layer = Parts.layerOf(tensor.name());
      boolean known =
          side.containsKey(tensor.name())
              || unsupported.containsKey(layer)
              || names.contains(layer);
      if (!float8 || known) {
        return;
      }
      for (String ending : FOREIGN_SCALES) {
        if (tensor.name().endsWith(ending)) {
          return;
        }
        if (source.tensors().containsKey(tensor.name() + ending)) {
          unsupported.put(
              layer,
              "found "
                  + tensor.dtype()
                  + " codes with "
                  + Problem.quote(tensor.name() + ending)
                  + " and no mark of their format, expected a format that is known");
          side.put(tensor.name(), "8-bit float codes of a format that is not known");
          side.put(tensor.name() + ending, "scales of a format that is not known");
          return;
        }
      }
      add(layer, tensor, Optional.empty());
    }

    private void note(String name, String line) {
      parts
          .find(name)
          .ifPresent(
              tensor -> {
                parts.scalar(tensor);
                side.put(name, line);
              });
    }

    private void add(String layer, Tensor weight, Optional<Tensor> scale) {
      Encoding dtype =
          parts.find(layer + ".bias").filter(Parts::isFloat).map(Parts::encoding).orElse(otherType);
      Parts.Size size = Parts.Size.of(weight.shape());
      ComfyFloat8Layout layout = new ComfyFloat8Layout(Parts.encoding(weight), scale.isPresent());
      Matrix matrix =
          layout.matrix(size.n(), size.k(), weight.data(), scale.map(parts::scalar), dtype);
      Map<String, Tensor> roles = new LinkedHashMap<>();
      roles.put("codes", weight);
      scale.ifPresent(tensor -> roles.put("scales", tensor));
      names.add(layer);
      layers.add(new QuantizedTensor(layer, weight.shape(), layout, roles, matrix, dtype));
    }

    private static Encoding mostFrequentType(CheckpointSource source) {
      Map<Encoding, Integer> counts = new EnumMap<>(Encoding.class);
      for (Tensor tensor : source.tensors().values()) {
        if (Parts.isFloat(tensor) && !tensor.name().contains("scale")) {
          counts.merge(Parts.encoding(tensor), 1, Integer::sum);
        }
      }
      return counts.entrySet().stream()
          .max(Map.Entry.comparingByValue())
          .map(Map.Entry::getKey)
          .orElse(Encoding.F32);
    }
  }
}
