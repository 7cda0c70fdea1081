package dev.gatun.bench.demo;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class ElementwiseTest {
  @Test
  void expIsNearTheDouble() {
    for (double x = -87; x <= 0; x += 1.0 / 512) {
      double expected = Math.exp((float) x);
      assertThat(Elementwise.exp((float) x) / expected).as("exp(%s)", x).isCloseTo(1, within(5e-7));
    }
    assertThat(Elementwise.exp(0)).isEqualTo(1);
    assertThat(Elementwise.exp(-88)).isZero();
    assertThat(Elementwise.exp(Float.NEGATIVE_INFINITY)).isZero();
    assertThat(Elementwise.exp(Float.NaN)).isNaN();
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 2, 3, 5, 8, 17, 384})
  void softmaxAndLayerNormFollowTheirDefinitions(int count) {
    Random random = new Random(count);
    float[] x = new float[count + 2];
    float[] weight = new float[count];
    float[] bias = new float[count];
    for (int i = 0; i < x.length; i++) {
      x[i] = (float) random.nextGaussian() * 10;
    }
    for (int i = 0; i < count; i++) {
      weight[i] = (float) random.nextGaussian();
      bias[i] = (float) random.nextGaussian();
    }
    float[] softmax = x.clone();
    Elementwise.softmax(softmax, 1, count, 0.5f);
    float[] norm = x.clone();
    Elementwise.normalize(norm, 1, count, weight, bias, 1e-5f);
    double sum = 0;
    double mean = 0;
    for (int i = 1; i <= count; i++) {
      sum += Math.exp(x[i] * 0.5);
      mean += x[i] / (double) count;
    }
    double variance = 0;
    for (int i = 1; i <= count; i++) {
      variance += (x[i] - mean) * (x[i] - mean) / count;
    }
    for (int i = 1; i <= count; i++) {
      assertThat((double) softmax[i]).isCloseTo(Math.exp(x[i] * 0.5) / sum, within(1e-6));
      double expected = (x[i] - mean) / Math.sqrt(variance + 1e-5) * weight[i - 1] + bias[i - 1];
      assertThat((double) norm[i]).isCloseTo(expected, within(1e-5 * (1 + Math.abs(expected))));
    }
    for (float[] result : new float[][] {softmax, norm}) {
      assertThat(result[0]).isEqualTo(x[0]);
      assertThat(result[count + 1]).isEqualTo(x[count + 1]);
    }
  }

  @Test
  void theMeanIsTakenDownTheRows() {
    float[] x = {9, 1, 2, 3, 4};
    float[] out = {7, 7, 7};
    Elementwise.meanOfRows(x, 1, 2, 2, out, 1);
    assertThat(out).containsExactly(7, 2, 3);
    Elementwise.toUnitLength(out, 1, 2);
    assertThat(out[1] * out[1] + out[2] * out[2]).isCloseTo(1, within(1e-6f));
  }
}
