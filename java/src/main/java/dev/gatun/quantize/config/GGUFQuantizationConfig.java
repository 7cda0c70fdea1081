package dev.gatun.quantize.config;

import com.fasterxml.jackson.annotation.JsonCreator;
import com.fasterxml.jackson.annotation.JsonValue;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.Compute;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.util.List;
import java.util.Optional;

/**
 * A GGUF file that diffusers loads: it is quantized already.
 *
 * @param computeDtype of the products
 */
public record GGUFQuantizationConfig(TorchType computeDtype) implements QuantizationConfig {
  static final String NAME = "gguf";

  /** What the library does when it is told nothing. */
  public static final GGUFQuantizationConfig DEFAULT =
      new GGUFQuantizationConfig(TorchType.FLOAT32);

  /** Reads it. */
  @JsonCreator(mode = JsonCreator.Mode.DELEGATING)
  public static GGUFQuantizationConfig of(JsonNode json) {
    Fields in = new Fields("GGUFQuantizationConfig", json);
    in.constant(METHOD, NAME);
    TorchType type = in.type("compute_dtype", TorchType.COMPUTE, DEFAULT.computeDtype);
    if (!in.bool("pre_quantized", true)) {
      throw in.wrong("pre_quantized", "false", "true: a GGUF file is quantized already");
    }
    if (in.has("modules_to_not_convert")) {
      throw in.wrong("modules_to_not_convert", "a list", "null: the file says what is quantized");
    }
    in.done();
    return new GGUFQuantizationConfig(type);
  }

  @Override
  public String quantMethod() {
    return NAME;
  }

  @Override
  @JsonValue
  public ObjectNode toJson() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.put("compute_dtype", computeDtype.text());
    json.putNull("modules_to_not_convert");
    json.put("pre_quantized", true);
    json.put(METHOD, NAME);
    return json;
  }

  @Override
  public ObjectNode defaults() {
    return DEFAULT.toJson();
  }

  @Override
  public Compute compute() {
    return computeDtype == TorchType.BFLOAT16 ? Compute.BF16 : Compute.F32;
  }

  @Override
  public Optional<List<String>> skipped() {
    return Optional.empty();
  }

  @Override
  public Optional<String> format(String layer, Tensor weight) {
    throw new GatunException(
        "GGUFQuantizationConfig: found no block type to write, expected --format with one of GGUF's"
            + " (the configuration only says how a file that exists is computed)");
  }
}
