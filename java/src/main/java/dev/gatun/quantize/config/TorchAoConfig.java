package dev.gatun.quantize.config;

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonValue;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.kernel.ScaleMethod;
import dev.gatun.kernel.Scaling;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/**
 * torchao, as diffusers configures it: by a class today, by a shorthand until March 2026.
 *
 * @param quantType a shorthand such as {@code int8wo} or a function's name; of the class form, the
 *     class's name
 * @param classVersion {@code _version} of the class form; empty: the shorthand form
 * @param settings arguments by name: {@code group_size}, {@code inner_k_tiles} …
 * @param modulesToNotConvert left as they are; empty: none
 */
public record TorchAoConfig(
    String quantType,
    Optional<Integer> classVersion,
    ObjectNode settings,
    Optional<List<String>> modulesToNotConvert)
    implements QuantizationConfig {
  static final String NAME = "torchao";

  private static final String CONFIG = "TorchAoConfig";
  private static final String GROUP_SIZE = "group_size";
  private static final String TILES = "tile_packed_to_4d";
  private static final List<Integer> INT4_GROUPS = List.of(32, 64, 128, 256);
  private static final List<Integer> INT8_GROUPS = List.of(32, 64, 128);

  /** Checks the type and its arguments' names and numbers. */
  public TorchAoConfig {
    settings = settings.deepCopy();
    modulesToNotConvert = modulesToNotConvert.map(List::copyOf);
    TorchAoScheme scheme =
        classVersion.isPresent()
            ? TorchAoScheme.ofClass(quantType)
            : TorchAoScheme.ofName(quantType);
    Fields in = new Fields(CONFIG + ": " + quantType, settings);
    scheme.settings().forEach(in::ignore);
    for (String number : List.of(GROUP_SIZE, "inner_k_tiles", "ebits", "mbits")) {
      Optional<Integer> value = in.integer(number);
      if (value.isPresent() && !scheme.settings().contains(number)) {
        throw in.wrong(number, value.get().toString(), "none: this type has no " + number);
      }
      if (value.isPresent() && value.get() <= 0) {
        throw in.wrong(number, value.get().toString(), "a positive number");
      }
    }
    in.done();
  }

  /** Reads it. */
  @JsonCreator(mode = JsonCreator.Mode.DELEGATING)
  public static TorchAoConfig of(JsonNode json) {
    Fields in = new Fields(CONFIG, json);
    in.constant(METHOD, NAME);
    JsonNode type =
        in.value("quant_type")
            .orElseThrow(() -> in.wrong("quant_type", "nothing", "a shorthand or a class"));
    Optional<List<String>> modules = in.names("modules_to_not_convert");
    if (type.isObject()) {
      TorchAoConfig config = ofClass(type, modules);
      in.done();
      return config;
    }
    if (!type.isTextual()) {
      throw in.wrong("quant_type", Fields.describe(type), "a shorthand or a class");
    }
    ObjectNode settings = JsonNodeFactory.instance.objectNode();
    in.value("quant_type_kwargs")
        .ifPresent(
            kwargs -> settings.setAll(new Fields(CONFIG + ": quant_type_kwargs", kwargs).rest()));
    settings.setAll(in.rest()); // as they are given to the constructor
    return new TorchAoConfig(type.textValue(), Optional.empty(), settings, modules);
  }

  private static TorchAoConfig ofClass(JsonNode type, Optional<List<String>> modules) {
    JsonNode inner = type;
    if (type.has("default")) {
      Fields outer = new Fields(CONFIG + ": quant_type", type);
      inner = outer.value("default").orElseThrow();
      outer.done();
    }
    Fields in = new Fields(CONFIG + ": quant_type", inner);
    String name =
        in.text("_type").orElseThrow(() -> in.wrong("_type", "nothing", "a class's name"));
    int version = in.integer("_version").orElse(1);
    JsonNode data = in.value("_data").orElse(JsonNodeFactory.instance.objectNode());
    in.done();
    ObjectNode settings = new Fields(CONFIG + ": " + name, data).rest();
    return new TorchAoConfig(name, Optional.of(version), settings, modules);
  }

  private TorchAoScheme scheme() {
    return classVersion.isPresent()
        ? TorchAoScheme.ofClass(quantType)
        : TorchAoScheme.ofName(quantType);
  }

  @Override
  public String quantMethod() {
    return NAME;
  }

  @Override
  @JsonValue
  public ObjectNode toJson() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.set("modules_to_not_convert", Modules.json(modulesToNotConvert));
    json.put(METHOD, NAME);
    if (classVersion.isPresent()) {
      ObjectNode type = json.putObject("quant_type").putObject("default");
      type.put("_type", quantType);
      type.put("_version", classVersion.get());
      type.set("_data", settings.deepCopy());
    } else {
      json.put("quant_type", quantType);
      json.set("quant_type_kwargs", settings.deepCopy());
    }
    return json;
  }

  @Override
  public ObjectNode defaults() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.putNull("modules_to_not_convert");
    json.put(METHOD, NAME);
    json.putObject("quant_type_kwargs");
    return json; // no type is the default
  }

  @Override
  public Optional<List<String>> skipped() {
    return modulesToNotConvert;
  }

  /** Consecutive weights that share a scale; empty: the type's own choice. */
  public Optional<Integer> groupSize() {
    return Optional.ofNullable(settings.get(GROUP_SIZE))
        .filter(node -> !node.isNull())
        .map(JsonNode::intValue);
  }

  @Override
  public Optional<String> format(String layer, Tensor weight) {
    if (!Modules.isLinear(layer) || Modules.skipsByParameter(skipped(), layer)) {
      return Optional.empty();
    }
    TorchAoScheme scheme = scheme();
    String format =
        scheme
            .format()
            .orElseThrow(
                () ->
                    new GatunException(
                        CONFIG
                            + ": quant_type: found '"
                            + quantType
                            + "', which no safetensors file holds, expected one of int4wo, int8wo,"
                            + " int8dq, float8wo, float8dq or their classes"));
    if (format.equals("int4wo")) {
      int group = groupSize().orElse(128);
      if (!INT4_GROUPS.contains(group)) {
        throw new GatunException(
            CONFIG + ": group_size: found " + group + ", expected one of " + INT4_GROUPS);
      }
      // torchao leaves weights whose rows are no whole groups as they are.
      return weight.shape().getLast() % group == 0
          ? Optional.of("torchao-int4wo" + packing() + (group == 128 ? "" : "-g" + group))
          : Optional.empty();
    }
    if (format.equals("int8wo")) {
      return int8WeightOnly(weight);
    }
    if (format.equals("intx")) {
      return intx(weight);
    }
    if (groupSize().isPresent()) {
      throw new GatunException(
          CONFIG
              + ": group_size: found "
              + groupSize().get()
              + ", expected none with "
              + quantType);
    }
    return Optional.of("torchao-" + withSettings(format));
  }

  /** Integers of few bits around zero, with a scale for each row or for so many weights of it. */
  private Optional<String> intx(Tensor weight) {
    expect("mapping_type", "symmetric");
    expect("intx_packing_format", "unpacked_to_int8");
    expect("intx_choose_qparams_algorithm", "affine");
    if (!setting("scale_dtype").isMissingNode()) {
      throw new GatunException(CONFIG + ": scale_dtype: found one, expected the weight's own");
    }
    String type = text(setting("weight_dtype")).replace("torch.", "");
    if (!type.isEmpty() && !type.matches("int[1-8]")) {
      throw new GatunException(
          CONFIG + ": weight_dtype: found '" + type + "', expected int1 to int8");
    }
    String name = "torchao-intx" + (type.isEmpty() ? "8" : type.substring("int".length()));
    JsonNode granularity = setting("granularity");
    return switch (granularity.path("_type").asText("PerAxis")) {
      case "PerAxis", "PerRow" -> Optional.of(name);
      case "PerGroup" -> {
        int group = granularity.path("_data").path(GROUP_SIZE).asInt();
        if (group < 1 || group > 999_999) {
          throw new GatunException(
              CONFIG + ": group_size: found " + group + ", expected 1 to 999999");
        }
        yield weight.shape().getLast() % group == 0
            ? Optional.of(name + "-g" + group)
            : Optional.empty();
      }
      default ->
          throw new GatunException(
              CONFIG
                  + ": granularity: found "
                  + Fields.describe(granularity)
                  + ", expected PerAxis or PerGroup");
    };
  }

  /** Refuses another word than the one that is written. */
  private void expect(String name, String word) {
    String found = text(setting(name));
    if (!found.isEmpty() && !found.equals(word)) {
      throw new GatunException(CONFIG + ": " + name + ": found '" + found + "', expected " + word);
    }
  }

  /** A scale for each row, for all of the weight, or for so many weights of a row. */
  private Optional<String> int8WeightOnly(Tensor weight) {
    JsonNode granularity = setting("granularity");
    String name =
        (granularity.isObject() ? granularity.path("_type") : granularity)
            .asText(groupSize().isPresent() ? "PerGroup" : "PerRow");
    return switch (name) {
      case "PerRow", "PerAxis", "per_row" -> Optional.of("torchao-int8wo");
      case "PerTensor", "per_tensor" -> Optional.of("torchao-int8wo-tensor");
      case "PerGroup" -> {
        int group = groupSize().orElseGet(() -> granularity.path("_data").path(GROUP_SIZE).asInt());
        if (!INT8_GROUPS.contains(group)) {
          throw new GatunException(
              CONFIG + ": group_size: found " + group + ", expected one of " + INT8_GROUPS);
        }
        yield weight.shape().getLast() % group == 0
            ? Optional.of("torchao-int8wo-g" + group)
            : Optional.empty();
      }
      default ->
          throw new GatunException(
              CONFIG
                  + ": granularity: found '"
                  + name
                  + "', expected PerRow, PerTensor or PerGroup");
    };
  }

  /** Tiles, as the shorthand made them; the class's own default are plain rows. */
  private String packing() {
    String packing = text(setting("int4_packing_format"));
    boolean plainByDefault = classVersion.orElse(1) > 1;
    return switch (packing.isEmpty() ? (plainByDefault ? "plain" : TILES) : packing) {
      case TILES -> "";
      case "plain" -> "-plain";
      default ->
          throw new GatunException(
              CONFIG
                  + ": int4_packing_format: found '"
                  + packing
                  + "', expected "
                  + TILES
                  + " or plain");
    };
  }

  /** Half-quadratic quantization, where the settings ask for it. */
  @Override
  public Scaling scaling() {
    boolean hqq =
        settings.path("use_hqq").asBoolean(false)
            || text(setting("int4_choose_qparams_algorithm")).equals("hqq");
    return hqq ? Scaling.of(ScaleMethod.HQQ) : Scaling.DEFAULT;
  }

  /** A word, or the value of an enumeration or type. */
  private static String text(JsonNode value) {
    return (value.isObject() ? value.path("_data") : value).asText("").toLowerCase(Locale.ROOT);
  }

  /** The class form says by settings what the shorthands say by their names. */
  private String withSettings(String format) {
    Map<TorchType, String> suffixes =
        Map.of(TorchType.FLOAT8_E4M3FN, "e4m3", TorchType.FLOAT8_E5M2, "e5m2");
    JsonNode dtype = setting("weight_dtype");
    if (format.startsWith("float8") && !dtype.isMissingNode()) {
      String name = (dtype.isObject() ? dtype.path("_data") : dtype).asText();
      TorchType type = TorchType.of(name, TorchType.FLOAT8, CONFIG + ": weight_dtype");
      format = format.replaceFirst("e[45]m[23]", suffixes.get(type));
    }
    JsonNode granularity = setting("granularity");
    if (format.startsWith("float8dq") && !granularity.isMissingNode()) {
      JsonNode first = granularity.isArray() ? granularity.path(0) : granularity;
      String name = (first.isObject() ? first.path("_type") : first).asText();
      format =
          switch (name) {
            case "PerRow", "per_row" -> format.replace("_tensor", "_row");
            case "PerTensor", "per_tensor" -> format.replace("_row", "_tensor");
            default ->
                throw new GatunException(
                    CONFIG
                        + ": granularity: found "
                        + Fields.describe(first)
                        + ", expected PerRow or PerTensor");
          };
    }
    return format;
  }

  private JsonNode setting(String name) {
    JsonNode value = settings.path(name);
    return value.isNull() ? settings.path("") : value;
  }
}
