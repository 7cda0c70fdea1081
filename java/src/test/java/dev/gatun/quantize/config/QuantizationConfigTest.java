package dev.gatun.quantize.config;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.Compute;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class QuantizationConfigTest {
  private static final Tensor WEIGHT =
      new Tensor("x.weight", DType.BF16, List.of(1L, 256L), MemorySegment.ofArray(new byte[512]));

  static JsonNode json(String text) {
    try {
      return new ObjectMapper().readTree(text.replace('\'', '"'));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static QuantizationConfig config(String text) {
    return QuantizationConfig.of(json(text));
  }

  @Test
  void bitsAndBytesHasTheLibrarysDefaults() {
    assertThat(BitsAndBytesConfig.DEFAULT.toJson())
        .isEqualTo(
            json(
                "{'_load_in_4bit':false,'_load_in_8bit':false,'bnb_4bit_compute_dtype':'float32',"
                    + "'bnb_4bit_quant_storage':'uint8','bnb_4bit_quant_type':'fp4',"
                    + "'bnb_4bit_use_double_quant':false,'llm_int8_enable_fp32_cpu_offload':false,"
                    + "'llm_int8_has_fp16_weight':false,'llm_int8_skip_modules':null,"
                    + "'llm_int8_threshold':6.0,'load_in_4bit':false,'load_in_8bit':false,"
                    + "'quant_method':'bitsandbytes'}"));
    assertThat(BitsAndBytesConfig.DEFAULT.toDiffJson()).isEmpty();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "{'load_in_4bit':true,'bnb_4bit_quant_type':'nf4','bnb_4bit_compute_dtype':'torch.bfloat16',"
            + "'bnb_4bit_use_double_quant':true}",
        "{'quant_method':'bitsandbytes','_load_in_8bit':true,'load_in_8bit':true,"
            + "'llm_int8_threshold':5.5,'llm_int8_skip_modules':['proj_out','lm_head']}",
        "{'quant_method':'gguf','compute_dtype':'bfloat16'}",
        "{'quant_method':'quanto','weights_dtype':'int2','modules_to_not_convert':['a']}",
        "{'quant_method':'quanto','weights':'float8','activations':'int8'}",
        "{'quant_method':'torchao','quant_type':'int4wo','quant_type_kwargs':{'group_size':64}}",
        "{'quant_method':'torchao','quant_type':'int4wo','group_size':64,'inner_k_tiles':8}",
        "{'quant_method':'torchao','quant_type':{'default':{'_type':'Int8WeightOnlyConfig',"
            + "'_version':2,'_data':{'set_inductor_config':true}}},'modules_to_not_convert':['b']}",
        "{'layer_quant_config':{'a.b':{'format':'nvfp4','full_precision_matrix_mult':true},"
            + "'c':'float8_e4m3fn','d':{'format':'convrot_w4a4','params':{'convrot_groupsize':64}}}}",
        "{'format_version':'1.0','layers':{'a':{'format':'mxfp8'}}}"
      })
  void whatIsWrittenIsReadAgain(String text) throws IOException {
    QuantizationConfig read = config(text);
    assertThat(QuantizationConfig.of(read.toJson())).isEqualTo(read);
    ObjectMapper mapper = new ObjectMapper();
    String written = mapper.writeValueAsString(read);
    assertThat(mapper.readValue(written, read.getClass())).isEqualTo(read);
    assertThat(mapper.readTree(written)).isEqualTo(read.toJson());
    JsonNode inModel = mapper.createObjectNode().set("quantization_config", read.toJson());
    assertThat(QuantizationConfig.inModelConfig(inModel)).contains(read);
  }

  @Test
  void theDifferenceHoldsWhatIsNotTheDefault() {
    assertThat(config("{'load_in_4bit':true,'bnb_4bit_quant_type':'nf4'}").toDiffJson())
        .isEqualTo(json("{'_load_in_4bit':true,'bnb_4bit_quant_type':'nf4','load_in_4bit':true}"));
    assertThat(config("{'quant_method':'quanto'}").toDiffJson()).isEmpty();
    assertThat(config("{'quant_method':'quanto','weights_dtype':'float8'}").toDiffJson())
        .isEqualTo(json("{'weights_dtype':'float8'}"));
    assertThat(config("{'quant_method':'gguf','compute_dtype':'float32'}").toDiffJson()).isEmpty();
    assertThat(config("{'quant_method':'torchao','quant_type':'int8wo'}").toDiffJson())
        .isEqualTo(json("{'quant_type':'int8wo'}"));
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "{'load_in_4bit':true,'load_in_8bit':true}|load_in_4bit and load_in_8bit",
        "{'load_in_4bit':true,'bnb_4bit_quant_typ':'nf4'}|bnb_4bit_quant_typ",
        "{'load_in_4bit':true,'bnb_4bit_quant_type':'nf5'}|nf5",
        "{'load_in_4bit':true,'llm_int8_threshold':6}|llm_int8_threshold",
        "{'load_in_4bit':1}|load_in_4bit",
        "{'load_in_4bit':true,'_load_in_4bit':false}|_load_in_4bit",
        "{'load_in_8bit':true,'llm_int8_skip_modules':'lm_head'}|llm_int8_skip_modules",
        "{'load_in_4bit':true,'bnb_4bit_compute_dtype':'int8'}|bnb_4bit_compute_dtype",
        "{'load_in_4bit':true,'bnb_4bit_quant_storage':'int4'}|bnb_4bit_quant_storage",
        "{'quant_method':'gguf','modules_to_not_convert':['a']}|modules_to_not_convert",
        "{'quant_method':'gguf','weights_dtype':'int8'}|weights_dtype",
        "{'quant_method':'quanto','weights_dtype':'int3'}|int3",
        "{'quant_method':'quanto','weights_dtype':'int8','activations':'int8'}|weights_dtype",
        "{'quant_method':'quanto','weights':'int8','activations':'int4'}|int4",
        "{'quant_method':'torchao'}|quant_type",
        "{'quant_method':'torchao','quant_type':'int9wo'}|int9wo",
        "{'quant_method':'torchao','quant_type':'fp6_e3m3'}|fp6_e3m3",
        "{'quant_method':'torchao','quant_type':'int8dq','group_size':32}|group_size",
        "{'quant_method':'torchao','quant_type':'int4wo','group_size':'a'}|group_size",
        "{'quant_method':'torchao','quant_type':'int4wo','group_size':-1}|group_size",
        "{'quant_method':'torchao','quant_type':'int4wo','inner_tiles':8}|inner_tiles",
        "{'quant_method':'torchao','quant_type':{'_type':'Int5Config'}}|Int5Config",
        "{'quant_method':'awq','bits':4}|awq",
        "{'weights_dtype':'int8'}|quant_method",
        "{'layer_quant_config':{'a':{'format':'fp3'}}}|fp3",
        "{'layer_quant_config':{'a':{'format':'nvfp4','groupsize':16}}}|groupsize",
        "{'layer_quant_config':{'a':{}}}|format"
      })
  void whatBreaksARuleIsRefusedByName(String text, String part) {
    assertThatThrownBy(() -> config(text))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining(part)
        .hasMessageContaining("expected");
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      quoteCharacter = '"',
      value = {
        "{'format':'int8_tensorwise'}|comfy-int8",
        "{'format':'int8_tensorwise','convrot':true,'convrot_groupsize':256}|comfy-int8-convrot",
        "{'format':'convrot_w4a4','convrot_groupsize':256}|comfy-convrot_w4a4",
        "{'format':'asym_w4a8_int8','params':{'group_size':16,'convrot_groupsize':256}}"
            + "|comfy-asym_w4a8_int8",
        "{'format':'awq_w4a16','group_size':64}|comfy-awq_w4a16"
      })
  void comfysOwnSettingsAreWritten(String layer, String format) {
    assertThat(config("{'layer_quant_config':{'a':" + layer + "}}").format("a", WEIGHT))
        .contains(format);
    String other =
        layer
            .replace("256", "64")
            .replace(":16", ":32")
            .replace("{'format'", "{'full_precision_matrix_mult':true,'format'");
    assertThatThrownBy(
            () -> config("{'layer_quant_config':{'a':" + other + "}}").format("a", WEIGHT))
        .hasMessageContaining("expected the format");
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "int4wo",
        "int4_weight_only",
        "int4dq",
        "int8wo",
        "int8dq",
        "float8wo",
        "float8wo_e4m3",
        "float8wo_e5m2",
        "float8dq",
        "float8dq_e4m3_tensor",
        "float8dq_e4m3_row",
        "uint1wo",
        "uint4wo",
        "uint7wo",
        "fp3_e1m1",
        "fp6_e3m2",
        "fp5"
      })
  void everyShorthandIsRead(String name) {
    QuantizationConfig config =
        config("{'quant_method':'torchao','quant_type':'%s'}".formatted(name));
    assertThat(config.toJson().path("quant_type").asText()).isEqualTo(name);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "{'load_in_4bit':true}|fp4",
        "{'load_in_4bit':true,'bnb_4bit_quant_type':'nf4'}|nf4",
        "{'load_in_4bit':true,'bnb_4bit_quant_type':'nf4','bnb_4bit_use_double_quant':true}"
            + "|nf4-nested",
        "{'load_in_8bit':true}|llm-int8",
        "{'quant_method':'quanto','weights_dtype':'float8'}|qfloat8_e4m3fn",
        "{'quant_method':'quanto','weights_dtype':'int4'}|qint4",
        "{'quant_method':'torchao','quant_type':'float8wo'}|torchao-float8wo_e5m2",
        "{'quant_method':'torchao','quant_type':'float8_weight_only'}|torchao-float8wo_e4m3",
        "{'quant_method':'torchao','quant_type':'int4wo'}|torchao-int4wo",
        "{'quant_method':'torchao','quant_type':'int4wo','group_size':32}|torchao-int4wo-g32",
        "{'quant_method':'torchao','quant_type':'int8wo','group_size':64}|torchao-int8wo-g64",
        "{'quant_method':'torchao','quant_type':{'_type':'Int8WeightOnlyConfig','_data':"
            + "{'granularity':{'_type':'PerRow','_version':1,'_data':{}}}}}|torchao-int8wo",
        "{'quant_method':'torchao','quant_type':{'_type':'Int8WeightOnlyConfig','_data':"
            + "{'granularity':{'_type':'PerTensor'}}}}|torchao-int8wo-tensor",
        "{'quant_method':'torchao','quant_type':{'_type':'Int8WeightOnlyConfig','_data':"
            + "{'granularity':{'_type':'PerGroup','_data':{'group_size':32}}}}}"
            + "|torchao-int8wo-g32",
        "{'quant_method':'torchao','quant_type':{'_type':'Float8WeightOnlyConfig','_data':"
            + "{'weight_dtype':{'_type':'torch.dtype','_data':'float8_e5m2'}}}}"
            + "|torchao-float8wo_e5m2",
        "{'quant_method':'torchao','quant_type':{'_type':'Float8DynamicActivationFloat8WeightConfig',"
            + "'_data':{'granularity':[{'_type':'PerRow'},{'_type':'PerRow'}]}}}"
            + "|torchao-float8dq_e4m3_row"
      })
  void aConfigurationSaysWhatIsWritten(String text, String format) {
    assertThat(config(text).format("blocks.0.to_q", WEIGHT)).contains(format);
    assertThat(config(text).format("text.embed_tokens", WEIGHT)).isEmpty();
  }

  @Test
  void eachLibraryMatchesNamesInItsOwnWay() {
    String bnb = "{'load_in_4bit':true,'llm_int8_skip_modules':['%s']}";
    assertThat(config(bnb.formatted("to_q")).format("blocks.0.to_q", WEIGHT)).isEmpty();
    assertThat(config(bnb.formatted("blocks.0")).format("blocks.0.to_q", WEIGHT)).isEmpty();
    assertThat(config(bnb.formatted("blocks.0.to_q")).format("blocks.0.to_q", WEIGHT)).isEmpty();
    assertThat(config(bnb.formatted("o_q")).format("blocks.0.to_q", WEIGHT)).isPresent();
    String ao = "{'quant_method':'torchao','quant_type':'int8wo','modules_to_not_convert':['%s']}";
    assertThat(config(ao.formatted("to_q")).format("blocks.0.to_q", WEIGHT)).isEmpty();
    assertThat(config(ao.formatted("blocks.0.to_q.weight")).format("blocks.0.to_q", WEIGHT))
        .isEmpty();
    assertThat(config(ao.formatted("to")).format("blocks.0.to_q", WEIGHT)).isPresent();
  }

  @Test
  void aGranularityThatNoFileHoldsIsRefused() {
    String json =
        "{'quant_method':'torchao','quant_type':{'_type':'Int8WeightOnlyConfig','_data':"
            + "{'granularity':{'_type':'%s','_data':{'group_size':48}}}}}";
    assertThatThrownBy(() -> config(json.formatted("PerGroup")).format("x", WEIGHT))
        .hasMessage("TorchAoConfig: group_size: found 48, expected one of [32, 64, 128]");
    assertThatThrownBy(() -> config(json.formatted("PerToken")).format("x", WEIGHT))
        .hasMessageContaining("granularity: found 'PerToken'");
  }

  @Test
  void theComputeTypeIsKept() {
    String bnb = "{'load_in_4bit':true,'bnb_4bit_compute_dtype':'%s'}";
    assertThat(config(bnb.formatted("bfloat16")).compute()).isEqualTo(Compute.BF16);
    assertThat(config(bnb.formatted("float16")).compute()).isEqualTo(Compute.F32);
    assertThat(config("{'quant_method':'quanto'}").compute()).isEqualTo(Compute.F32);
  }

  @Test
  void intFourLeavesRowsOfPartGroupsAsTheyAre() {
    Tensor odd =
        new Tensor("x.weight", DType.BF16, List.of(1L, 96L), MemorySegment.ofArray(new byte[192]));
    assertThat(config("{'quant_method':'torchao','quant_type':'int4wo'}").format("x", odd))
        .isEqualTo(Optional.empty());
  }
}
