package dev.gatun.checkpoint;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.layout.ComfyAwqLayout;
import dev.gatun.layout.ComfyBlockLayout;
import dev.gatun.layout.ComfyFloat8Layout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * ComfyUI's quantized checkpoints: layers marked by {@code _quantization_metadata} in the
 * container's metadata or by a tensor {@code X.comfy_quant}, legacy files with {@code scaled_fp8}
 * and {@code X.scale_weight}, and 8-bit float tensors without any mark, which are read as they are
 * (scale 1). Source: ComfyUI's QUANTIZATION.md, comfy/ops.py, utils.py and quant_ops.py.
 *
 * <p>The type that a layer had before quantization is not stored. It is taken from the layer's
 * bias, else from the checkpoint's other float tensors (the most frequent type), else it is F32.
 */
public final class ComfyUi implements CheckpointFormat {
  static final String METADATA = "_quantization_metadata";
  static final String MARK = ".comfy_quant";
  static final String LEGACY_MARK = "scaled_fp8";
  private static final String LEGACY_SCALE = ".scale_weight";

  /** Endings that make an 8-bit float tensor another format's weight, not one without a scale. */
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

  /** ComfyUI dequantizes to the type that is asked for; some layouts also compute in it. */
  @Override
  public QuantizedTensor withDtype(QuantizedTensor layer, Encoding dtype) {
    boolean computes =
        switch (layer.layout()) {
          case ComfyFloat8Layout f -> true;
          case ComfyBlockLayout b -> b.computesInResult();
          case ComfyAwqLayout a -> false;
          default -> false;
        };
    return layer.withMatrix(
        m -> computes ? m.toBuilder().arithmetic(dtype).result(dtype).build() : m.withResult(dtype),
        dtype);
  }

  @Override
  public Set<String> metadataKeys() {
    return Set.of(METADATA);
  }

  @Override
  public Map<String, String> writes() {
    return ComfyFormat.all();
  }

  @Override
  public LayerWriter writer(String format) {
    if (!writes().containsKey(format)) {
      throw new GatunException(
          "no format '" + format + "' in comfyui, expected one of " + writes().keySet());
    }
    return new ComfyUiWriter(format);
  }

  /** One pass over one checkpoint. */
  private static final class Reader {
    private final CheckpointSource source;
    private final Parts parts;
    private final ComfyUiLayers found;
    private final Map<String, String> side = new LinkedHashMap<>();
    private final Map<String, String> unsupported = new LinkedHashMap<>();
    private final SortedNames names;

    Reader(CheckpointSource source) {
      this.source = source;
      this.names = new SortedNames(source.tensors().keySet());
      this.parts = new Parts(source);
      this.found = new ComfyUiLayers(parts);
    }

    Found read() {
      Map<String, ComfyMark> marked = new LinkedHashMap<>();
      String metadata = source.metadata().get(METADATA);
      if (metadata != null) {
        marked.putAll(fromMetadata(metadata));
      }
      source.tensors().values().stream()
          .filter(tensor -> tensor.name().endsWith(MARK))
          .forEach(tensor -> mark(tensor, marked));
      if (metadata == null && marked.isEmpty()) {
        readLegacy();
      }
      marked.forEach(this::readMarked);
      source.tensors().values().forEach(this::readUnmarked);
      return new Found(new ArrayList<>(found.layers().values()), side, unsupported);
    }

    private void mark(Tensor tensor, Map<String, ComfyMark> marked) {
      String layer = tensor.name().substring(0, tensor.name().length() - MARK.length());
      ComfyMark mark = ComfyMark.of(source, layer, parts.json(tensor));
      marked.put(layer, mark);
      side.put(tensor.name(), "ComfyUI's mark of a quantized layer, " + mark.describe());
    }

    private Map<String, ComfyMark> fromMetadata(String text) {
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
      Map<String, ComfyMark> marked = new LinkedHashMap<>();
      for (Map.Entry<String, JsonNode> entry : entries.properties()) {
        String layer = fullName(entry.getKey());
        marked.put(layer, ComfyMark.of(source, layer, entry.getValue()));
      }
      return marked;
    }

    /**
     * Some writers leave the model's prefix out: the one tensor that ends with the name is meant.
     */
    private String fullName(String layer) {
      String weight = layer + Parts.WEIGHT;
      if (source.tensors().containsKey(weight)) {
        return layer;
      }
      return names.onlyEndingWith("." + weight).map(Parts::layerOf).orElse(layer);
    }

    private void readMarked(String layer, ComfyMark mark) {
      if (!ComfyUiLayers.reads(mark.format())) {
        unsupported.put(
            layer,
            "unknown ComfyUI format " + Problem.quote(mark.format()) + " is not supported yet");
        for (String name : names.startingWith(layer + ".")) {
          if (!name.endsWith(".bias")) {
            side.putIfAbsent(
                name,
                "part of a ComfyUI " + Problem.quote(mark.format()) + " weight, not supported yet");
          }
        }
        return;
      }
      found.read(layer, mark);
      parts
          .find(layer + ".weight_correction")
          .ifPresent(t -> side.put(t.name(), "correction that ComfyUI itself does not read"));
    }

    private static boolean isLegacyMark(String name) {
      return name.equals(LEGACY_MARK) || name.endsWith("." + LEGACY_MARK);
    }

    private void readLegacy() {
      // A mark of two elements says that ComfyUI multiplies in full precision.
      boolean full =
          source.tensors().values().stream()
              .anyMatch(t -> isLegacyMark(t.name()) && t.elements() == 2);
      for (Tensor tensor : source.tensors().values()) {
        String name = tensor.name();
        if (isLegacyMark(name)) {
          side.put(name, "mark of a legacy ComfyUI FP8 checkpoint");
        } else if (name.endsWith(LEGACY_SCALE)) {
          String layer = name.substring(0, name.length() - LEGACY_SCALE.length());
          Tensor weight =
              parts.require(
                  layer + Parts.WEIGHT, "the weight that " + Problem.quote(name) + " scales");
          parts.dtype(weight, DType.F8_E4M3, DType.F8_E5M2);
          found.float8(layer, weight, tensor, ".scale_input", !full);
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
              || found.isPart(tensor.name());
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
      found.float8(layer, tensor, null, ".scale_input", false);
    }
  }
}
