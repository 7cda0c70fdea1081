package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.GenericOperations;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Products of every golden file against plain mathematics on the library's own weights, on every
 * backend that there is.
 */
class GoldenProductTest {
  private static final double TOLERANCE = 1e-6;

  /** Its product is that of zero points which the file cannot hold; see {@link GoldenCase}. */
  private static final String LOST_ZEROS = "b2_g64_asym";

  static Stream<Arguments> products() {
    List<Arguments> all = new ArrayList<>();
    for (String backend : List.of("reference", "vector", "native", "cuda")) {
      for (String family : GoldenDequantizeTest.FAMILIES) {
        for (String name : Golden.cases(family)) {
          all.add(Arguments.of(backend, family, name));
        }
      }
    }
    return all.stream();
  }

  @ParameterizedTest(name = "{0} {1}/{2}")
  @MethodSource("products")
  void multipliesAsTheLibrarysWeights(String backend, String family, String name) {
    assumeTrue(
        Device.probe().stream().anyMatch(p -> p.backend().equals(backend) && p.available()),
        "no backend " + backend);
    GoldenCase golden = new GoldenCase(family, name);
    List<String> weights =
        GoldenCase.weights(family, name).stream()
            .filter(w -> golden.hasProduct(w) && !name.equals(LOST_ZEROS))
            .toList();
    assumeTrue(!weights.isEmpty(), "no products in this case");
    try (Checkpoint checkpoint = Checkpoint.open(golden.dir());
        Device device = Device.of(backend, 2);
        SafetensorsFile inputs =
            SafetensorsFile.open(Golden.file("orig", "orig", "inputs.safetensors"));
        SafetensorsFile reference = SafetensorsFile.open(golden.file("ref.safetensors"))) {
      for (String weight : weights) {
        Tensor x = inputs.tensors().get("x_" + weight);
        Tensor expected = reference.tensors().get(weight + ".y_dq32");
        String layer = golden.layer(checkpoint, weight);
        QuantizedTensor q = checkpoint.quantized(layer);
        if (q.matrix().k() != x.shape().get(1)) { // quanto does not store the shape
          q = GenericOperations.reshape(q, shape(golden.description(), weight));
        }
        long m = x.shape().get(0);
        float[] y = new float[Math.toIntExact(expected.elements())];
        Tensor bias = checkpoint.bias(layer).orElse(null);
        try (Linear linear = Linear.of(q, bias, Compute.F32, device)) {
          float[] input = rounded(x, golden.inputType(q.dtype()));
          linear.forward(MemorySegment.ofArray(input), m, MemorySegment.ofArray(y));
        }
        assertThat(distance(y, expected))
            .as("%s, relative", weight)
            .isLessThanOrEqualTo(TOLERANCE * Math.sqrt(x.shape().get(1)));
      }
    }
  }

  private static List<Long> shape(JsonNode description, String weight) {
    List<Long> shape = new ArrayList<>();
    description
        .path("sha256")
        .path(weight + ".dq")
        .path("shape")
        .forEach(size -> shape.add(size.asLong()));
    return shape;
  }

  /** The library was given x in the type that the weight had. */
  private static float[] rounded(Tensor x, Encoding type) {
    float[] values = new float[Math.toIntExact(x.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = HalfFloat.round(type, Numbers.get(Encoding.F32, x.data(), i));
    }
    return values;
  }

  /** Frobenius norm of the difference over that of what is expected. */
  private static double distance(float[] found, Tensor expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < found.length; i++) {
      double e = Numbers.get(Encoding.F32, expected.data(), i);
      if (Double.isNaN(e) && Float.isNaN(found[i])) {
        continue;
      }
      difference += (found[i] - e) * (found[i] - e);
      norm += e * e;
    }
    return Math.sqrt(difference / norm);
  }
}
