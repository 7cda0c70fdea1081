package dev.gatun.quantize.config;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.Compute;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.kernel.Scaling;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;

/**
 * How one model is quantized, as its library writes it into {@code config.json} under {@code
 * quantization_config}. Records; absent keys have the library's defaults, unknown keys are refused.
 */
public sealed interface QuantizationConfig
    permits BitsAndBytesConfig,
        GGUFQuantizationConfig,
        LayerQuantConfig,
        QuantoConfig,
        TorchAoConfig {
  /** The key under which {@code config.json} carries a configuration. */
  String KEY = "quantization_config";

  /** What tells the libraries' configurations apart. */
  String METHOD = "quant_method";

  /** {@code bitsandbytes}, {@code gguf}, {@code quanto}, {@code torchao}, {@code comfyui}. */
  String quantMethod();

  /** Every key with its value, in alphabetical order, as {@code config.json} has them. */
  ObjectNode toJson();

  /** What a configuration without any settings has. */
  ObjectNode defaults();

  /** Only what differs from the defaults. */
  default ObjectNode toDiffJson() {
    ObjectNode json = toJson();
    ObjectNode defaults = defaults();
    json.properties().removeIf(entry -> entry.getValue().equals(defaults.get(entry.getKey())));
    return json;
  }

  /**
   * The name under which {@code gatun quantize} writes this layer; empty when the configuration
   * leaves it as it is.
   *
   * @param layer plain name
   * @param weight of the layer, [N, K]
   * @throws GatunException when no format that is written holds such weights
   */
  Optional<String> format(String layer, Tensor weight);

  /** How scales are chosen; as the formats' own libraries do it, unless the configuration says. */
  default Scaling scaling() {
    return Scaling.DEFAULT;
  }

  /** What layers are multiplied in; half precision is computed in floats. */
  default Compute compute() {
    return Compute.F32;
  }

  /** Modules that the configuration leaves as they are; empty when it names none. */
  Optional<List<String>> skipped();

  /**
   * Reads a configuration of any kind.
   *
   * @throws GatunException when {@code quant_method} is missing or unknown, a key is unknown, or a
   *     rule of the library is broken
   */
  static QuantizationConfig of(JsonNode json) {
    JsonNode method = json.path(METHOD);
    if (method.isMissingNode() && (json.has("load_in_4bit") || json.has("load_in_8bit"))) {
      return BitsAndBytesConfig.of(json); // as transformers tells it
    }
    if (json.has(LayerQuantConfig.NAME) || json.has("layers")) {
      return LayerQuantConfig.of(json);
    }
    return switch (method.asText()) {
      case BitsAndBytesConfig.NAME -> BitsAndBytesConfig.of(json);
      case GGUFQuantizationConfig.NAME -> GGUFQuantizationConfig.of(json);
      case QuantoConfig.NAME -> QuantoConfig.of(json);
      case TorchAoConfig.NAME -> TorchAoConfig.of(json);
      default ->
          throw new GatunException(
              KEY
                  + ": "
                  + METHOD
                  + ": found "
                  + Fields.describe(method)
                  + ", expected one of bitsandbytes, gguf, quanto, torchao (or ComfyUI's"
                  + " layer_quant_config)");
    };
  }

  /** The {@code quantization_config} of a model's {@code config.json}; empty when it has none. */
  static Optional<QuantizationConfig> inModelConfig(JsonNode config) {
    JsonNode json = config.path(KEY);
    return json.isMissingNode() || json.isNull() ? Optional.empty() : Optional.of(of(json));
  }

  /**
   * Reads a JSON file.
   *
   * @throws GatunException when it cannot be read or is no JSON document without duplicate keys
   */
  static JsonNode read(Path path) {
    try {
      return new ObjectMapper()
          .enable(JsonParser.Feature.STRICT_DUPLICATE_DETECTION)
          .enable(DeserializationFeature.FAIL_ON_TRAILING_TOKENS)
          .readTree(Files.readString(path));
    } catch (JsonProcessingException e) {
      throw new GatunException(
          path + ": found bad JSON (" + e.getOriginalMessage() + "), expected a configuration", e);
    } catch (IOException e) {
      throw new GatunException(path + ": cannot be read, expected a configuration", e);
    }
  }
}
