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
 * bitsandbytes, as transformers and diffusers configure it.
 *
 * @param loadIn8bit LLM.int8()
 * @param loadIn4bit NF4 or FP4; not both
 * @param llmInt8Threshold activations above it are outliers, kept in 16 bits
 * @param llmInt8SkipModules left as they are; empty: the library's choice
 * @param llmInt8EnableFp32CpuOffload keep modules on the CPU in float32
 * @param llmInt8HasFp16Weight keep 16-bit weights for the backward pass
 * @param bnb4bitComputeDtype of the products
 * @param bnb4bitQuantType {@code fp4} or {@code nf4}
 * @param bnb4bitUseDoubleQuant quantize the scales too
 * @param bnb4bitQuantStorage how the codes' bytes are labelled
 */
public record BitsAndBytesConfig(
    boolean loadIn8bit,
    boolean loadIn4bit,
    double llmInt8Threshold,
    Optional<List<String>> llmInt8SkipModules,
    boolean llmInt8EnableFp32CpuOffload,
    boolean llmInt8HasFp16Weight,
    TorchType bnb4bitComputeDtype,
    String bnb4bitQuantType,
    boolean bnb4bitUseDoubleQuant,
    TorchType bnb4bitQuantStorage)
    implements QuantizationConfig {
  static final String NAME = "bitsandbytes";

  private static final List<String> QUANT_TYPES = List.of("fp4", "nf4");

  /** What the library does when it is told nothing. */
  public static final BitsAndBytesConfig DEFAULT =
      new BitsAndBytesConfig(
          false,
          false,
          6.0,
          Optional.empty(),
          false,
          false,
          TorchType.FLOAT32,
          "fp4",
          false,
          TorchType.UINT8);

  /** Checks what the library checks. */
  public BitsAndBytesConfig {
    if (loadIn4bit && loadIn8bit) {
      throw new GatunException(
          "BitsAndBytesConfig: found load_in_4bit and load_in_8bit, expected one of them");
    }
    if (!QUANT_TYPES.contains(bnb4bitQuantType)) {
      throw new GatunException(
          "BitsAndBytesConfig: bnb_4bit_quant_type: found '"
              + bnb4bitQuantType
              + "', expected one of fp4, nf4");
    }
    if (!TorchType.STORAGE.contains(bnb4bitQuantStorage)) {
      throw new GatunException(
          "BitsAndBytesConfig: bnb_4bit_quant_storage: found '"
              + bnb4bitQuantStorage.text()
              + "', expected a type that PyTorch stores");
    }
    llmInt8SkipModules = llmInt8SkipModules.map(List::copyOf);
  }

  /** Reads it. */
  @JsonCreator(mode = JsonCreator.Mode.DELEGATING)
  public static BitsAndBytesConfig of(JsonNode json) {
    Fields in = new Fields("BitsAndBytesConfig", json);
    in.constant(METHOD, NAME);
    BitsAndBytesConfig config =
        new BitsAndBytesConfig(
            flag(in, "load_in_8bit"),
            flag(in, "load_in_4bit"),
            in.real("llm_int8_threshold", DEFAULT.llmInt8Threshold),
            in.names("llm_int8_skip_modules"),
            in.bool("llm_int8_enable_fp32_cpu_offload", false),
            in.bool("llm_int8_has_fp16_weight", false),
            in.type("bnb_4bit_compute_dtype", TorchType.COMPUTE, DEFAULT.bnb4bitComputeDtype),
            in.text("bnb_4bit_quant_type").orElse(DEFAULT.bnb4bitQuantType),
            in.bool("bnb_4bit_use_double_quant", false),
            in.type("bnb_4bit_quant_storage", TorchType.STORAGE, DEFAULT.bnb4bitQuantStorage));
    in.done();
    return config;
  }

  /** The library writes each of the two under two names. */
  private static boolean flag(Fields in, String key) {
    boolean plain = in.bool(key, false);
    boolean underscored = in.bool("_" + key, plain);
    if (in.has(key) && in.has("_" + key) && plain != underscored) {
      throw in.wrong("_" + key, String.valueOf(underscored), plain + " as " + key + " has it");
    }
    return plain || underscored;
  }

  @Override
  public String quantMethod() {
    return NAME;
  }

  @Override
  @JsonValue
  public ObjectNode toJson() {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    json.put("_load_in_4bit", loadIn4bit);
    json.put("_load_in_8bit", loadIn8bit);
    json.put("bnb_4bit_compute_dtype", bnb4bitComputeDtype.text());
    json.put("bnb_4bit_quant_storage", bnb4bitQuantStorage.text());
    json.put("bnb_4bit_quant_type", bnb4bitQuantType);
    json.put("bnb_4bit_use_double_quant", bnb4bitUseDoubleQuant);
    json.put("llm_int8_enable_fp32_cpu_offload", llmInt8EnableFp32CpuOffload);
    json.put("llm_int8_has_fp16_weight", llmInt8HasFp16Weight);
    json.set("llm_int8_skip_modules", Modules.json(llmInt8SkipModules));
    json.put("llm_int8_threshold", llmInt8Threshold);
    json.put("load_in_4bit", loadIn4bit);
    json.put("load_in_8bit", loadIn8bit);
    json.put(METHOD, NAME);
    return json;
  }

  @Override
  public ObjectNode defaults() {
    return DEFAULT.toJson();
  }

  @Override
  public Compute compute() {
    return loadIn4bit && bnb4bitComputeDtype == TorchType.BFLOAT16 ? Compute.BF16 : Compute.F32;
  }

  @Override
  public Optional<List<String>> skipped() {
    return llmInt8SkipModules;
  }

  @Override
  public Optional<String> format(String layer, Tensor weight) {
    if (!Modules.isLinear(layer) || Modules.skipsByName(skipped(), layer)) {
      return Optional.empty();
    }
    if (loadIn8bit) {
      return Optional.of("llm-int8");
    }
    if (!loadIn4bit) {
      throw new GatunException(
          "BitsAndBytesConfig: found neither load_in_4bit nor load_in_8bit, expected one of them");
    }
    String storage = bnb4bitQuantStorage == TorchType.UINT8 ? "" : ":" + bnb4bitQuantStorage.text();
    return Optional.of(bnb4bitQuantType + (bnb4bitUseDoubleQuant ? "-nested" : "") + storage);
  }
}
