package dev.gatun.kernel.codec;

import static dev.gatun.Epilogue.Activation.GELU;
import static dev.gatun.Epilogue.Activation.GELU_TANH;
import static dev.gatun.Epilogue.Activation.SILU;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import dev.gatun.Epilogue;
import dev.gatun.Epilogue.Activation;
import dev.gatun.Epilogue.Combine;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class ActivationsTest {
  /** Against C's erfc. */
  @ParameterizedTest
  @CsvSource({
    "-6.0, 2.0",
    "-3.0, 1.9999779095030015",
    "-2.0, 1.9953222650189528",
    "-0.5, 1.5204998778130465",
    "0.0, 1.0",
    "1e-10, 0.999999999887162",
    "0.5, 0.4795001221869535",
    "1.0, 0.15729920705028513",
    "1.9999, 0.004679802092970608",
    "2.0, 0.004677734981047265",
    "3.0, 2.2090496998585438e-05",
    "5.0, 1.5374597944280351e-12",
    "9.0, 4.13703174651381e-37"
  })
  void erfcKeepsTheDigitsOfItsTails(double x, double expected) {
    assertThat(Activations.erfc(x)).isCloseTo(expected, within(1e-13 * expected));
  }

  /** Against C's erfc, tanh and exp. */
  @ParameterizedTest
  @CsvSource({
    "-9.0, -1.015729565358458e-18, -0.0, -0.0011105511838760856",
    "-3.0, -0.004049694094890287, -0.0036373920817729943, -0.14227761953270035",
    "-0.7, -0.16937455655615113, -0.16942986529488321, -0.2322685594822837",
    "0.3, 0.18537342665668577, 0.18537092354275922, 0.1723327550434977",
    "2.5, 2.4844758366855597, 2.484915733910001, 2.3103545499468914"
  })
  void followsTheFormulas(double v, double gelu, double tanh, double silu) {
    assertThat(Activations.activate(GELU, v)).isCloseTo(gelu, within(1e-13 * Math.abs(gelu)));
    assertThat(Activations.activate(GELU_TANH, v)).isCloseTo(tanh, within(1e-14));
    assertThat(Activations.activate(SILU, v)).isCloseTo(silu, within(1e-14 * Math.abs(silu)));
  }

  @ParameterizedTest
  @EnumSource(Activation.class)
  void nanAndInfinityPass(Activation activation) {
    assertThat(Activations.activate(activation, Double.NaN)).isNaN();
    assertThat(Activations.activate(activation, Double.POSITIVE_INFINITY))
        .isEqualTo(Double.POSITIVE_INFINITY);
  }

  @Test
  void activatesBeforeItCombines() {
    double silu = Activations.activate(SILU, 2);
    assertThat(Activations.apply(new Epilogue(SILU, Combine.ADD), 2, 5)).isEqualTo(silu + 5);
    assertThat(Activations.apply(new Epilogue(SILU, Combine.MULTIPLY), 2, 5)).isEqualTo(silu * 5);
    assertThat(Activations.apply(Epilogue.of(SILU), 2, 5)).isEqualTo(silu);
    assertThat(Activations.apply(Epilogue.NONE, 2, 5)).isEqualTo(2);
  }
}
