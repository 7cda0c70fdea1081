package dev.gatun.quantize.config;

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonValue;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.GatunException;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * diffusers' configuration of a whole pipeline: one backend for all components or some, or one
 * configuration for each of those that are named.
 *
 * @param quantBackend {@code bitsandbytes_4bit}, {@code bitsandbytes_8bit} or {@code torchao}; not
 *     together with {@code quantMapping}
 * @param quantKwargs the backend's settings
 * @param componentsToQuantize of the backend; empty: every component
 * @param quantMapping by component; empty with a backend
 */
public record PipelineQuantizationConfig(
    Optional<String> quantBackend,
    ObjectNode quantKwargs,
    Optional<List<String>> componentsToQuantize,
    Map<String, QuantizationConfig> quantMapping) {
  private static final String WHAT = "PipelineQuantizationConfig";
  private static final List<String> BACKENDS =
      List.of(
          "bitsandbytes_4bit",
          "bitsandbytes_8bit",
          "gguf",
          "quanto",
          "torchao",
          "modelopt",
          "auto-round",
          "nunchaku_lite",
          "sdnq");

  /** Those whose configuration takes the same settings in diffusers and in transformers. */
  private static final List<String> COMMON =
      List.of("bitsandbytes_4bit", "bitsandbytes_8bit", "torchao");

  /** Checks what diffusers checks. */
  public PipelineQuantizationConfig {
    quantKwargs = quantKwargs.deepCopy();
    componentsToQuantize = componentsToQuantize.map(List::copyOf);
    quantMapping = Collections.unmodifiableMap(new LinkedHashMap<>(quantMapping));
    if (quantBackend.isPresent() && !quantMapping.isEmpty()) {
      throw new GatunException(
          WHAT + ": found quant_backend and quant_mapping, expected one of them");
    }
    if (quantBackend.isEmpty() && quantMapping.isEmpty()) {
      throw new GatunException(
          WHAT + ": found neither quant_backend nor quant_mapping, expected one of them");
    }
    if (quantBackend.isPresent()) {
      check(quantBackend.get(), quantKwargs);
    } else if (!quantKwargs.isEmpty()) {
      throw new GatunException(
          WHAT + ": found quant_kwargs beside quant_mapping, expected them with quant_backend");
    }
  }

  private static void check(String backend, ObjectNode kwargs) {
    if (!BACKENDS.contains(backend)) {
      throw new GatunException(
          WHAT
              + ": quant_backend: found '"
              + backend
              + "', expected one of "
              + String.join(", ", BACKENDS));
    }
    if (kwargs.isEmpty()) {
      throw new GatunException(
          WHAT
              + ": found quant_backend '"
              + backend
              + "' without quant_kwargs, expected at least one setting");
    }
    if (!COMMON.contains(backend)) {
      throw new GatunException(
          WHAT
              + ": quant_backend: found '"
              + backend
              + "', whose configurations in diffusers and transformers take different settings or"
              + " which only one of them has, expected quant_mapping");
    }
  }

  /** Reads it. */
  @JsonCreator(mode = JsonCreator.Mode.DELEGATING)
  public static PipelineQuantizationConfig of(JsonNode json) {
    Fields in = new Fields(WHAT, json);
    Map<String, QuantizationConfig> mapping = new LinkedHashMap<>();
    in.value("quant_mapping")
        .ifPresent(
            node -> {
              if (!node.isObject()) {
                throw in.wrong("quant_mapping", Fields.describe(node), "one entry a component");
              }
              node.properties()
                  .forEach(
                      entry -> {
                        try {
                          mapping.put(entry.getKey(), QuantizationConfig.of(entry.getValue()));
                        } catch (GatunException e) {
                          throw new GatunException(
                              WHAT + ": component '" + entry.getKey() + "': " + e.getMessage(), e);
                        }
                      });
            });
    ObjectNode kwargs =
        in.value("quant_kwargs")
            .map(node -> new Fields(WHAT + ": quant_kwargs", node).rest())
            .orElse(JsonNodeFactory.instance.objectNode());
    PipelineQuantizationConfig config =
        new PipelineQuantizationConfig(
            in.text("quant_backend"), kwargs, in.nameOrNames("components_to_quantize"), mapping);
    in.done();
    config.quantBackend.ifPresent(backend -> config.ofBackend());
    return config;
  }

  /** Whether a JSON document is such a configuration rather than that of one model. */
  public static boolean matches(JsonNode json) {
    return json.has("quant_backend") || json.has("quant_mapping");
  }

  /** How a component is quantized; empty: it stays as it is. */
  public Optional<QuantizationConfig> of(String component) {
    if (quantBackend.isEmpty()) {
      return Optional.ofNullable(quantMapping.get(component));
    }
    boolean wanted = componentsToQuantize.map(names -> names.contains(component)).orElse(true);
    return wanted ? Optional.of(ofBackend()) : Optional.empty();
  }

  /** The components that are named; empty: all. */
  public Optional<List<String>> components() {
    return quantBackend.isPresent()
        ? componentsToQuantize
        : Optional.of(List.copyOf(quantMapping.keySet()));
  }

  private QuantizationConfig ofBackend() {
    ObjectNode settings = quantKwargs.deepCopy();
    return switch (quantBackend.orElseThrow()) {
      case "bitsandbytes_4bit" -> bitsAndBytes(settings, "load_in_4bit");
      case "bitsandbytes_8bit" -> bitsAndBytes(settings, "load_in_8bit");
      default -> TorchAoConfig.of(settings);
    };
  }

  /** The backend's name says what the settings may leave out. */
  private static QuantizationConfig bitsAndBytes(ObjectNode settings, String flag) {
    if (!settings.has(flag)) {
      settings.put(flag, true);
    }
    return BitsAndBytesConfig.of(settings);
  }

  /** Every key with its value. */
  @JsonValue
  public ObjectNode toJson() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.put("quant_backend", quantBackend.orElse(null));
    json.set(
        "quant_kwargs",
        quantBackend.isPresent() ? quantKwargs.deepCopy() : JsonNodeFactory.instance.nullNode());
    json.set("components_to_quantize", Modules.json(componentsToQuantize));
    if (quantMapping.isEmpty()) {
      json.putNull("quant_mapping");
    } else {
      ObjectNode mapping = json.putObject("quant_mapping");
      quantMapping.forEach((name, config) -> mapping.set(name, config.toJson()));
    }
    return json;
  }

  /** Only what differs from the defaults, which are all null. */
  public ObjectNode toDiffJson() {
    ObjectNode json = toJson();
    json.properties().removeIf(entry -> entry.getValue().isNull());
    return json;
  }
}
