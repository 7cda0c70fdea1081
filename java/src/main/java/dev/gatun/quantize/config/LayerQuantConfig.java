package dev.gatun.quantize.config;

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonValue;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * ComfyUI's {@code layer_quant_config}: which layers are quantized and how each one is. Layers that
 * it does not name stay as they are.
 *
 * @param layers by plain name, in the order of the file
 */
public record LayerQuantConfig(Map<String, Layer> layers) implements QuantizationConfig {
  static final String NAME = "layer_quant_config";

  private static final String WHAT = "layer_quant_config";
  private static final String VERSION = "1.0";
  private static final List<String> FORMATS =
      List.of(
          "float8_e4m3fn",
          "float8_e5m2",
          "mxfp8",
          "nvfp4",
          "int8_tensorwise",
          "convrot_w4a4",
          "asym_w4a8_int8",
          "awq_w4a16");

  /** The sizes that are written, by format; those of rotated bytes under {@code convrot}. */
  private static final Map<String, Map<String, Integer>> SETTINGS =
      Map.of(
          "convrot", Map.of("convrot_groupsize", 256),
          "convrot_w4a4", Map.of("convrot_groupsize", 256),
          "asym_w4a8_int8", Map.of("group_size", 16, "convrot_groupsize", 256),
          "awq_w4a16", Map.of("group_size", 64));

  private static final List<String> FLAGS = List.of("convrot");
  private static final List<String> NUMBERS =
      List.of("convrot_groupsize", "group_size", "num_experts");

  /**
   * One layer.
   *
   * @param format one of ComfyUI's: {@code float8_e4m3fn}, {@code nvfp4} …
   * @param fullPrecisionMatrixMult dequantize and multiply in high precision
   * @param params what else the format takes: {@code convrot}, {@code convrot_groupsize}, {@code
   *     group_size}, {@code linear_dtype}, {@code num_experts}
   */
  public record Layer(String format, boolean fullPrecisionMatrixMult, ObjectNode params) {
    /** Copies the parameters. */
    public Layer {
      params = params.deepCopy();
    }

    private static Layer of(String name, JsonNode json) {
      String what = WHAT + ": layer '" + name + "'";
      if (json.isTextual()) { // some write the bare name
        json = JsonNodeFactory.instance.objectNode().put("format", json.textValue());
      }
      Fields in = new Fields(what, json);
      if (!in.has("format")) {
        throw in.wrong("format", "nothing", "one of " + String.join(", ", FORMATS));
      }
      String format = in.word("format", FORMATS, "");
      boolean full = in.bool("full_precision_matrix_mult", false);
      ObjectNode params = JsonNodeFactory.instance.objectNode();
      read(in, params);
      in.value("params")
          .ifPresent(
              node -> {
                Fields nested = new Fields(what + ": params", node);
                read(nested, params);
                nested.done();
              });
      in.done();
      return new Layer(format, full, params);
    }

    private static void read(Fields in, ObjectNode params) {
      for (String flag : FLAGS) {
        if (in.has(flag)) {
          params.put(flag, in.bool(flag, false));
        }
      }
      for (String number : NUMBERS) {
        in.integer(number).ifPresent(value -> params.put(number, value));
      }
      if (in.has("linear_dtype")) {
        params.put("linear_dtype", in.word("linear_dtype", List.of("int4", "int8"), "int4"));
      }
    }

    ObjectNode toJson() {
      ObjectNode json = JsonNodeFactory.instance.objectNode().put("format", format);
      if (fullPrecisionMatrixMult) {
        json.put("full_precision_matrix_mult", true);
      }
      json.setAll(params);
      return json;
    }
  }

  /** Copies the map. */
  public LayerQuantConfig {
    layers = Collections.unmodifiableMap(new LinkedHashMap<>(layers));
  }

  /**
   * Reads the layers' object, or one that holds it under {@code layer_quant_config} or, with {@code
   * format_version}, under {@code layers}.
   */
  @JsonCreator(mode = JsonCreator.Mode.DELEGATING)
  public static LayerQuantConfig of(JsonNode json) {
    JsonNode entries = json;
    if (json.has(NAME)) {
      Fields in = new Fields(WHAT, json);
      entries = in.value(NAME).orElse(JsonNodeFactory.instance.objectNode());
      in.done();
    }
    if (entries.path("layers").isObject()) {
      Fields in = new Fields(WHAT, entries);
      in.constant("format_version", VERSION);
      entries = in.value("layers").orElseThrow();
      in.done();
    }
    if (!entries.isObject()) {
      throw new GatunException(
          WHAT + ": found " + Fields.describe(entries) + ", expected a JSON object");
    }
    Map<String, Layer> layers = new LinkedHashMap<>();
    entries
        .properties()
        .forEach(entry -> layers.put(entry.getKey(), Layer.of(entry.getKey(), entry.getValue())));
    return new LayerQuantConfig(layers);
  }

  @Override
  public String quantMethod() {
    return "comfyui";
  }

  @Override
  @JsonValue
  public ObjectNode toJson() {
    ObjectNode json = JsonNodeFactory.instance.objectNode().put("format_version", VERSION);
    ObjectNode entries = json.putObject("layers");
    layers.forEach((name, layer) -> entries.set(name, layer.toJson()));
    return json;
  }

  @Override
  public ObjectNode defaults() {
    return JsonNodeFactory.instance.objectNode();
  }

  @Override
  public Optional<List<String>> skipped() {
    return Optional.empty();
  }

  @Override
  public Optional<String> format(String layer, Tensor weight) {
    return Optional.ofNullable(layers.get(layer)).map(LayerQuantConfig::written);
  }

  /** Takes a flag out. */
  private static boolean flag(ObjectNode params, String name) {
    JsonNode value = params.remove(name);
    return value != null && value.asBoolean();
  }

  /** The name under which a layer is written. */
  private static String written(Layer layer) {
    ObjectNode left = layer.params.deepCopy();
    boolean rotated = layer.format.equals("int8_tensorwise") && flag(left, "convrot");
    SETTINGS
        .getOrDefault(rotated ? "convrot" : layer.format, Map.of())
        .forEach(
            (name, value) -> {
              if (left.path(name).asInt() == value) {
                left.remove(name);
              }
            });
    if (layer.fullPrecisionMatrixMult || !left.isEmpty()) {
      throw new GatunException(
          WHAT
              + ": found settings "
              + layer.toJson()
              + ", expected the format with none but "
              + SETTINGS.getOrDefault(layer.format, Map.of())
              + ": no others are written");
    }
    return switch (layer.format) {
      case "float8_e4m3fn", "float8_e5m2" -> layer.format;
      case "int8_tensorwise" -> rotated ? "comfy-int8-convrot" : "comfy-int8";
      default -> "comfy-" + layer.format;
    };
  }
}
