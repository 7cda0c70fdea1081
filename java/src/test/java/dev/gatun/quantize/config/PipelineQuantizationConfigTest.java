package dev.gatun.quantize.config;

import static dev.gatun.quantize.config.QuantizationConfigTest.json;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.GatunException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class PipelineQuantizationConfigTest {
  private static PipelineQuantizationConfig config(String text) {
    return PipelineQuantizationConfig.of(json(text));
  }

  @Test
  void oneBackendForSomeComponents() {
    PipelineQuantizationConfig config =
        config(
            "{'quant_backend':'bitsandbytes_4bit','quant_kwargs':{'load_in_4bit':true,"
                + "'bnb_4bit_quant_type':'nf4'},'components_to_quantize':['transformer','text_encoder_2']}");
    assertThat(config.of("transformer"))
        .contains(QuantizationConfig.of(json("{'load_in_4bit':true,'bnb_4bit_quant_type':'nf4'}")));
    assertThat(config.of("vae")).isEmpty();
    assertThat(config.components().orElseThrow()).containsExactly("transformer", "text_encoder_2");
  }

  @Test
  void absentComponentsMeanEveryOne() {
    PipelineQuantizationConfig config =
        config("{'quant_backend':'bitsandbytes_8bit','quant_kwargs':{'llm_int8_threshold':5.0}}");
    assertThat(config.of("anything").orElseThrow().toDiffJson())
        .isEqualTo(json("{'_load_in_8bit':true,'llm_int8_threshold':5.0,'load_in_8bit':true}"));
    assertThat(config.components()).isEmpty();
    assertThat(
            config(
                    "{'quant_backend':'torchao','quant_kwargs':{'quant_type':'int4wo','group_size':64},"
                        + "'components_to_quantize':'transformer'}")
                .of("transformer"))
        .contains(
            QuantizationConfig.of(
                json(
                    "{'quant_method':'torchao','quant_type':'int4wo','quant_type_kwargs':{'group_size':64}}")));
  }

  @Test
  void oneConfigurationForEachComponent() {
    PipelineQuantizationConfig config =
        config(
            "{'quant_mapping':{'transformer':{'quant_method':'quanto','weights_dtype':'int8'},"
                + "'text_encoder':{'load_in_4bit':true}}}");
    assertThat(config.of("transformer").orElseThrow().quantMethod()).isEqualTo("quanto");
    assertThat(config.of("text_encoder").orElseThrow().quantMethod()).isEqualTo("bitsandbytes");
    assertThat(config.of("vae")).isEmpty();
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "{'quant_backend':'torchao','quant_kwargs':{'quant_type':'int8wo'}}",
        "{'quant_mapping':{'a':{'quant_method':'quanto','weights_dtype':'int8'}}}"
      })
  void whatIsWrittenIsReadAgain(String text) throws Exception {
    PipelineQuantizationConfig read = config(text);
    assertThat(PipelineQuantizationConfig.of(read.toJson())).isEqualTo(read);
    assertThat(PipelineQuantizationConfig.of(read.toDiffJson())).isEqualTo(read);
    ObjectMapper mapper = new ObjectMapper();
    assertThat(mapper.readValue(mapper.writeValueAsString(read), PipelineQuantizationConfig.class))
        .isEqualTo(read);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "{}|neither quant_backend nor quant_mapping",
        "{'quant_backend':'torchao','quant_kwargs':{'quant_type':'int8wo'},'quant_mapping':"
            + "{'a':{'load_in_4bit':true}}}|quant_backend and quant_mapping",
        "{'quant_backend':'bitsandbytes_4bit'}|without quant_kwargs",
        "{'quant_backend':'quanto','quant_kwargs':{'weights_dtype':'int8'}}|quant_mapping",
        "{'quant_backend':'gguf','quant_kwargs':{'compute_dtype':'float16'}}|quant_mapping",
        "{'quant_backend':'awq','quant_kwargs':{'bits':4}}|awq",
        "{'quant_backend':'bitsandbytes_4bit','quant_kwargs':{'bits':4}}|bits",
        "{'quant_mapping':{'a':{'load_in_4bit':true,'x':1}}}|component 'a'",
        "{'quant_mapping':{'a':{'load_in_4bit':true}},'quant_kwargs':{'x':1}}|quant_kwargs",
        "{'quant_mapping':{'a':{'load_in_4bit':true}},'components':'a'}|components",
        "{'quant_mapping':[]}|quant_mapping"
      })
  void whatBreaksARuleIsRefusedByName(String text, String part) {
    assertThatThrownBy(() -> config(text))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining(part)
        .hasMessageContaining("expected");
  }
}
