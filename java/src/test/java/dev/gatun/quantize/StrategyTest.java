package dev.gatun.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.GatunException;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Every number type with every strategy. */
class StrategyTest {
  @Test
  void everyCombinationIsWrittenOrRefusedWithWhatIs() {
    for (String type : Strategy.types()) {
      assertThat(Quantizer.formats()).as(type).containsKey(Strategy.format(type, Optional.empty()));
      for (Strategy strategy : Strategy.values()) {
        try {
          String format = Strategy.format(type, Optional.of(strategy));
          assertThat(Quantizer.formats()).containsKey(format);
        } catch (GatunException e) {
          assertThat(e)
              .hasMessageStartingWith("strategy: found '" + strategy.text() + "' for " + type);
          assertThat(e.getMessage()).containsAnyOf("expected one of per_", "expected none");
        }
      }
    }
  }

  @ParameterizedTest
  @CsvSource({
    "int8,per_channel,qint8",
    "int8,group,torchao-int8wo-g128",
    "int4,block,gguf-q4_0",
    "fp8,per_tensor,float8_e4m3fn",
    "float8,per_channel,qfloat8_e4m3fn",
    "nf4,per_block,nf4",
    "mxfp8,block,comfy-mxfp8"
  })
  void namesTheFormat(String type, String strategy, String format) {
    assertThat(Strategy.format(type, Optional.of(Strategy.of(strategy)))).isEqualTo(format);
  }

  @Test
  void refusesNamesThatThereAreNot() {
    assertThatThrownBy(() -> Strategy.of("per_row_group")).hasMessageContaining("per_channel");
    assertThatThrownBy(() -> Strategy.format("int3", Optional.empty()))
        .hasMessageContaining("float16");
  }
}
