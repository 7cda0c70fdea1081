package dev.gatun.quantize.config;

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonValue;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.util.List;
import java.util.Optional;

/**
 * quanto, as diffusers configures it ({@code weights_dtype}) or transformers does ({@code weights},
 * {@code activations}).
 *
 * @param weightsDtype {@code float8} (e4m3fn), {@code int8}, {@code int4} or {@code int2}
 * @param activations {@code float8} or {@code int8}; empty: not quantized. transformers only
 * @param modulesToNotConvert left as they are; empty: none
 * @param dialect whose keys are written
 */
public record QuantoConfig(
    String weightsDtype,
    Optional<String> activations,
    Optional<List<String>> modulesToNotConvert,
    Dialect dialect)
    implements QuantizationConfig {
  static final String NAME = "quanto";

  private static final List<String> WEIGHTS = List.of("float8", "int8", "int4", "int2");
  private static final List<String> ACTIVATIONS = List.of("float8", "int8");

  /** Whose keys a configuration has. */
  public enum Dialect {
    DIFFUSERS,
    TRANSFORMERS
  }

  /** What diffusers does when it is told nothing. */
  public static final QuantoConfig DEFAULT =
      new QuantoConfig("int8", Optional.empty(), Optional.empty(), Dialect.DIFFUSERS);

  /** Checks what the libraries check. */
  public QuantoConfig {
    if (!WEIGHTS.contains(weightsDtype)) {
      throw new GatunException(
          "QuantoConfig: weights_dtype: found '"
              + weightsDtype
              + "', expected one of "
              + String.join(", ", WEIGHTS));
    }
    if (activations.isPresent() && !ACTIVATIONS.contains(activations.get())) {
      throw new GatunException(
          "QuantoConfig: activations: found '"
              + activations.get()
              + "', expected one of "
              + String.join(", ", ACTIVATIONS));
    }
    if (activations.isPresent() && dialect == Dialect.DIFFUSERS) {
      throw new GatunException(
          "QuantoConfig: found activations beside weights_dtype, expected transformers' keys"
              + " weights and activations");
    }
    modulesToNotConvert = modulesToNotConvert.map(List::copyOf);
  }

  /** Reads it. */
  @JsonCreator(mode = JsonCreator.Mode.DELEGATING)
  public static QuantoConfig of(JsonNode json) {
    Fields in = new Fields("QuantoConfig", json);
    in.constant(METHOD, NAME);
    boolean transformers = in.has("weights") || in.has("activations");
    if (transformers && in.has("weights_dtype")) {
      throw in.wrong(
          "weights_dtype", "it beside weights or activations", "the keys of one library");
    }
    QuantoConfig config =
        new QuantoConfig(
            in.text(transformers ? "weights" : "weights_dtype").orElse(DEFAULT.weightsDtype),
            in.text("activations"),
            in.names("modules_to_not_convert"),
            transformers ? Dialect.TRANSFORMERS : Dialect.DIFFUSERS);
    in.done();
    return config;
  }

  @Override
  public String quantMethod() {
    return NAME;
  }

  @Override
  @JsonValue
  public ObjectNode toJson() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    if (dialect == Dialect.TRANSFORMERS) {
      json.put("activations", activations.orElse(null));
    }
    json.set("modules_to_not_convert", Modules.json(modulesToNotConvert));
    json.put(METHOD, NAME);
    json.put(dialect == Dialect.TRANSFORMERS ? "weights" : "weights_dtype", weightsDtype);
    return json;
  }

  @Override
  public ObjectNode defaults() {
    return new QuantoConfig(DEFAULT.weightsDtype, Optional.empty(), Optional.empty(), dialect)
        .toJson();
  }

  @Override
  public Optional<List<String>> skipped() {
    return modulesToNotConvert;
  }

  @Override
  public Optional<String> format(String layer, Tensor weight) {
    return Modules.isLinear(layer) && !Modules.skipsByName(skipped(), layer)
        ? Optional.of(weightsDtype.equals("float8") ? "qfloat8_e4m3fn" : "q" + weightsDtype)
        : Optional.empty();
  }
}
