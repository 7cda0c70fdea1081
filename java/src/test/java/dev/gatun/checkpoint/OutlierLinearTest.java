package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** LLM.int8()'s product, outlier columns apart, against bitsandbytes' own. */
class OutlierLinearTest {
  /** The library rounds to half precision twice on the way. */
  private static final double HALF_PRECISION = 1e-3;

  @ParameterizedTest
  @CsvSource({
    "reference,to_q",
    "reference,proj",
    "vector,to_q",
    "native,to_q",
    "native,proj",
    "cuda,to_q",
    "cuda,proj"
  })
  void multipliesAsTheLibrary(String backend, String weight) {
    assumeTrue(
        Device.probe().stream().anyMatch(p -> p.backend().equals(backend) && p.available()),
        "no backend " + backend);
    GoldenCase golden = new GoldenCase("bnb", "int8");
    try (Checkpoint checkpoint = Checkpoint.open(golden.dir());
        Device device = Device.of(backend, 1);
        Linear linear = checkpoint.linear("blocks.0." + weight, Compute.I8, device);
        SafetensorsFile inputs =
            SafetensorsFile.open(Golden.file("orig", "orig", "inputs.safetensors"));
        SafetensorsFile reference = SafetensorsFile.open(golden.file("ref.safetensors"))) {
      assertThat(linear.kernel(1)).endsWith("+outliers");
      Tensor x = inputs.tensors().get("x_" + weight);
      Tensor y = reference.tensors().get(weight + ".y");
      float[] found = new float[Math.toIntExact(y.elements())];
      linear.forward(x.data(), x.shape().get(0), MemorySegment.ofArray(found));
      double difference = 0;
      double norm = 0;
      for (int i = 0; i < found.length; i++) {
        double e = Numbers.get(Encoding.F16, y.data(), i);
        difference += (found[i] - e) * (found[i] - e);
        norm += e * e;
      }
      assertThat(Math.sqrt(difference / norm)).as("relative").isLessThan(HALF_PRECISION);
    }
  }
}
