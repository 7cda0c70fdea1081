package dev.gatun.quantize;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.json.JsonWriteFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import dev.gatun.checkpoint.OutputFile;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * quanto's {@code quantization_map.json}: what a model's modules are quantized to.
 *
 * @param modules by name, in the model's order
 */
public record QuantizationMap(Map<String, Module> modules) {
  /** The name of the file beside the checkpoint. */
  public static final String FILE = "quantization_map.json";

  private static final List<String> FILES = List.of(FILE, "quanto_qmap.json");
  private static final JsonMapper MAPPER =
      JsonMapper.builder().enable(JsonWriteFeature.ESCAPE_NON_ASCII).build();
  private static final String NONE = "none";
  private static final String WEIGHTS = "weights";
  private static final String ACTIVATIONS = "activations";

  /** Types of weights by quanto's names. */
  public static final List<String> WEIGHT_TYPES =
      List.of("qint2", "qint4", "qint8", "qfloat8_e4m3fn", "qfloat8_e4m3fnuz", "qfloat8_e5m2");

  private static final Map<String, Encoding> ACTIVATION_TYPES =
      Map.of(
          "qint8", Encoding.I8,
          "qfloat8_e4m3fn", Encoding.F8_E4M3,
          "qfloat8_e4m3fnuz", Encoding.F8_E4M3FNUZ,
          "qfloat8_e5m2", Encoding.F8_E5M2);

  /**
   * One module.
   *
   * @param weights {@code qint8} …; empty: its weight is not quantized (layer norms)
   * @param activations {@code qint8} or an 8-bit float; empty: not quantized
   */
  public record Module(Optional<String> weights, Optional<String> activations) {
    /** Refuses types that quanto does not have; {@code qfloat8} is its name for e4m3fn. */
    public Module {
      weights = weights.map(Module::fullName);
      activations = activations.map(Module::fullName);
      weights.ifPresent(type -> check(type, WEIGHT_TYPES));
      activations.ifPresent(
          type -> check(type, ACTIVATION_TYPES.keySet().stream().sorted().toList()));
    }

    private static String fullName(String type) {
      return type.equals("qfloat8") ? "qfloat8_e4m3fn" : type;
    }

    private static void check(String type, List<String> types) {
      if (!types.contains(type)) {
        throw new GatunException(
            "quantization map: found type '" + type + "', expected one of " + types);
      }
    }

    /** The activations' encoding. */
    public Optional<Encoding> activationEncoding() {
      return activations.map(ACTIVATION_TYPES::get);
    }
  }

  /** Keeps the order. */
  public QuantizationMap {
    modules = Collections.unmodifiableMap(new LinkedHashMap<>(modules));
  }

  /** quanto's name of a type of activations. */
  static String activationType(Encoding encoding) {
    return ACTIVATION_TYPES.entrySet().stream()
        .filter(entry -> entry.getValue() == encoding)
        .map(Map.Entry::getKey)
        .findFirst()
        .orElseThrow(() -> new GatunException("quanto has no activations of " + encoding));
  }

  /**
   * The map beside a checkpoint; when there is none, one of its quanto layers without activations.
   */
  public static QuantizationMap of(Checkpoint checkpoint) {
    for (String name : FILES) {
      JsonNode map = checkpoint.sidecar(name);
      if (!map.isMissingNode()) {
        return of(map, name);
      }
    }
    Map<String, Module> modules = new LinkedHashMap<>();
    checkpoint
        .layers()
        .forEach(
            (name, weight) -> {
              boolean quanto =
                  checkpoint.format(name).map(CheckpointFormat::name).orElse("").equals("quanto");
              if (quanto) {
                String type = weight.layout().name().substring("quanto.".length());
                modules.put(name, new Module(Optional.of(type), Optional.empty()));
              }
            });
    return new QuantizationMap(modules);
  }

  /** Reads a file of this kind. */
  public static QuantizationMap read(Path file) {
    try {
      return of(MAPPER.readTree(Files.readString(file)), file.toString());
    } catch (JsonProcessingException e) {
      throw new GatunException(file + ": found no JSON, expected one entry a module", e);
    } catch (IOException e) {
      throw new GatunException(file + ": cannot be read (" + e.getMessage() + ")", e);
    }
  }

  private static QuantizationMap of(JsonNode json, String source) {
    if (!json.isObject()) {
      throw new GatunException(source + ": found no JSON object, expected one entry a module");
    }
    Map<String, Module> modules = new LinkedHashMap<>();
    for (Map.Entry<String, JsonNode> entry : json.properties()) {
      try {
        modules.put(
            entry.getKey(),
            new Module(type(entry.getValue(), WEIGHTS), type(entry.getValue(), ACTIVATIONS)));
      } catch (GatunException e) {
        throw new GatunException(
            source + ": module '" + entry.getKey() + "': " + e.getMessage(), e);
      }
    }
    return new QuantizationMap(modules);
  }

  private static Optional<String> type(JsonNode module, String key) {
    JsonNode type = module.path(key);
    if (!type.isTextual()) {
      throw new GatunException(
          key
              + ": found "
              + (type.isMissingNode() ? "nothing" : type)
              + ", expected a type or none");
    }
    return type.textValue().equals(NONE) ? Optional.empty() : Optional.of(type.textValue());
  }

  /** The same with activations of one module quantized. */
  QuantizationMap withActivations(String module, Encoding encoding) {
    Map<String, Module> changed = new LinkedHashMap<>(modules);
    Module before = changed.get(module);
    Optional<String> weights = before == null ? Optional.empty() : before.weights();
    changed.put(module, new Module(weights, Optional.of(activationType(encoding))));
    return new QuantizationMap(changed);
  }

  /** As the file has it: quanto's words, Python's layout. */
  public String toJson() {
    StringBuilder json = new StringBuilder("{");
    String comma = "\n";
    for (Map.Entry<String, Module> entry : modules.entrySet()) {
      json.append(comma)
          .append("    ")
          .append(quoted(entry.getKey()))
          .append(": {\n        \"weights\": ")
          .append(quoted(entry.getValue().weights().orElse(NONE)))
          .append(",\n        \"activations\": ")
          .append(quoted(entry.getValue().activations().orElse(NONE)))
          .append("\n    }");
      comma = ",\n";
    }
    return json.append(modules.isEmpty() ? "}" : "\n}").toString();
  }

  private static String quoted(String text) {
    try {
      return MAPPER.writeValueAsString(text);
    } catch (JsonProcessingException e) {
      throw new IllegalStateException(e);
    }
  }

  /** Writes the file. */
  void write(Path target) {
    try (OutputFile file = OutputFile.create(target)) {
      file.write(0, MemorySegment.ofArray(toJson().getBytes(StandardCharsets.UTF_8)));
      file.force();
      file.commit();
    }
  }
}
