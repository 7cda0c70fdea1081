package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class CheckpointLinearTest {
  @ParameterizedTest
  @CsvSource({"blocks.0.to_q", "blocks.0.to_q.weight", "proj_out", "proj_out.weight"})
  void multipliesQuantizedAndPlainLayersByTheirPlainName(String name) {
    try (Checkpoint checkpoint = Checkpoint.open(Golden.dir("bnb", "nf4_bf16"));
        Device device = Device.of("reference", 1);
        Linear linear = checkpoint.linear(name, device)) {
      assertThat(linear.compute()).isEqualTo(Compute.F32);
      float[] x = new float[Math.toIntExact(linear.inFeatures())];
      float[] y = new float[Math.toIntExact(linear.outFeatures())];
      x[1] = 1; // y becomes column 1 of W, plus the bias
      linear.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(y));
      float[] expected = column(checkpoint, device, name.replace(".weight", ""), 1);
      for (int i = 0; i < y.length; i++) {
        assertThat(y[i]).as("output %d", i).isCloseTo(expected[i], within(1e-6f));
      }
    }
  }

  private static float[] column(Checkpoint checkpoint, Device device, String layer, long column) {
    Tensor plain = checkpoint.plain().get(layer + ".weight");
    MemorySegment row = MemorySegment.ofArray(new float[1 << 12]);
    long n = plain != null ? plain.shape().get(0) : checkpoint.quantized(layer).matrix().n();
    float[] values = new float[Math.toIntExact(n)];
    for (int i = 0; i < n; i++) {
      if (plain != null) {
        values[i] = number(plain, i * plain.shape().get(1) + column);
      } else {
        device.backend().dequantize(checkpoint.quantized(layer).matrix(), i, 1, row, Encoding.F32);
        values[i] = Numbers.get(Encoding.F32, row, column);
      }
      long at = i;
      values[i] += checkpoint.bias(layer).map(b -> number(b, at)).orElse(0f);
    }
    return values;
  }

  private static float number(Tensor tensor, long i) {
    return Numbers.get(tensor.dtype().encoding().orElseThrow(), tensor.data(), i);
  }

  @ParameterizedTest
  @CsvSource({"blocks.0.to_x", "blocks.0.norm"})
  void namesTheLayerThatIsNoLinearLayer(String name) {
    try (Checkpoint checkpoint = Checkpoint.open(Golden.dir("bnb", "nf4_bf16"));
        Device device = Device.of("reference", 1)) {
      assertThatThrownBy(() -> checkpoint.linear(name, Compute.F32, device))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining(name);
    }
  }
}
