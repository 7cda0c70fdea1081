package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.Rounding;
import dev.gatun.Tensor;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.GenericOperations;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Products with static activations, compared with what the libraries themselves computed: ComfyUI's
 * scaled_mm and quanto's calibrated modules, whose outputs are rounded too.
 */
class GoldenStaticTest {
  private static final long ROWS = 24;
  private static final List<String> BACKENDS = List.of("reference", "vector", "native", "cuda");

  static Stream<Arguments> quanto() {
    return Golden.cases("quanto").stream()
        .filter(name -> Golden.description("quanto", name).path("activations").isTextual())
        .flatMap(name -> Stream.of("to_q", "proj").map(w -> new String[] {name, w}))
        .flatMap(c -> BACKENDS.stream().map(b -> Arguments.of(b, c[0], c[1])));
  }

  /** y itself is rounded, so that a sum's last bits seldom matter: nearly all numbers are equal. */
  @ParameterizedTest(name = "{0} {1} {2}")
  @MethodSource("quanto")
  void multipliesAsQuanto(String backend, String name, String weight) {
    GoldenCase golden = new GoldenCase("quanto", name);
    Compute compute = name.contains("qfloat8") ? Compute.F8 : Compute.I8_STATIC;
    try (Run run = new Run(golden, backend);
        SafetensorsFile reference = SafetensorsFile.open(golden.file("ref.safetensors"))) {
      QuantizedTensor q = run.weight(weight);
      Tensor expected = reference.tensors().get(weight + ".y");
      Rounding output = q.outputRounding().orElseThrow();
      for (long rows : new long[] {ROWS, 1}) {
        float[] y = run.forward(q, weight, rows, compute);
        int different = 0;
        float furthest = 0;
        for (int i = 0; i < y.length; i++) {
          float e = Numbers.get(Encoding.F32, expected.data(), i);
          different += y[i] == e ? 0 : 1;
          // A tie that falls the other way is one step: a code of integers, an eighth of a float.
          float step = compute == Compute.F8 ? Math.abs(e) / 8 + output.scale() : output.scale();
          furthest = Math.max(furthest, Math.abs(y[i] - e) / step);
        }
        assertThat(furthest).as("steps").isLessThan(1.001f);
        // A GPU adds products of 8-bit floats with fewer bits.
        int most = y.length / (compute == Compute.F8 && backend.equals("cuda") ? 100 : 500);
        assertThat(different).as("of %d numbers", y.length).isLessThanOrEqualTo(most);
      }
    }
  }

  static Stream<Arguments> comfy() {
    return Golden.cases("comfy").stream()
        .filter(name -> name.startsWith("float8"))
        .flatMap(name -> Stream.of("to_q", "proj").map(w -> new String[] {name, w}))
        .flatMap(c -> BACKENDS.stream().map(b -> Arguments.of(b, c[0], c[1])));
  }

  /** The library's codes of x, and its product of them on a GPU and in plain mathematics. */
  @ParameterizedTest(name = "{0} {1} {2}")
  @MethodSource("comfy")
  void multipliesAsComfyUi(String backend, String name, String weight) {
    GoldenCase golden = new GoldenCase("comfy", name);
    try (Run run = new Run(golden, backend);
        SafetensorsFile reference = SafetensorsFile.open(golden.file("ref.safetensors"))) {
      QuantizedTensor own = run.weight(weight);
      assertThat(run.forward(own, weight, ROWS, Compute.F8))
          .satisfies(y -> isPlain(y, run.plain(own, weight), own, backend));
      if (!reference.tensors().containsKey(weight + ".y_cuda_scaledmm")) {
        return; // cases among the resources need not have everything
      }
      // The library's products are of scales that the file does not have: absmax / 448, and 1.
      Tensor scale = reference.tensors().get(weight + ".x_scale");
      QuantizedTensor q = withInputScale(own, Optional.of(scale));
      Rounding rounding = q.inputRounding().orElseThrow();
      Tensor codes = reference.tensors().get(weight + ".x_q");
      int different = 0;
      for (int i = 0; i < codes.elements(); i++) {
        float v = HalfFloat.round(q.dtype(), Numbers.get(Encoding.F32, run.x(weight).data(), i));
        float expected = Numbers.get(Encoding.F8_E4M3, codes.data(), i) * rounding.scale();
        different += rounding.round(q.dtype(), v) == expected ? 0 : 1;
      }
      assertThat(different).as("codes of x that differ").isZero();
      isScaledMm(run, q, weight, reference.tensors().get(weight + ".y_cuda_scaledmm"));
      isScaledMm(
          run,
          withInputScale(own, Optional.empty()),
          weight,
          reference.tensors().get(weight + ".y_cuda_scaledmm_inscale1"));
    }
  }

  private static QuantizedTensor withInputScale(QuantizedTensor q, Optional<Tensor> scale) {
    Map<String, Tensor> parts = new LinkedHashMap<>(q.parts());
    parts.remove(QuantizedTensor.INPUT_SCALE);
    scale.ifPresent(part -> parts.put(QuantizedTensor.INPUT_SCALE, part));
    return q.with(q.shape(), parts, q.matrix(), q.dtype());
  }

  private static void isScaledMm(Run run, QuantizedTensor q, String weight, Tensor expected) {
    float[] y = run.forward(q, weight, ROWS, Compute.F8);
    isPlain(y, run.plain(q, weight), q, run.device.name());
    Encoding type = expected.dtype().encoding().orElseThrow();
    double[] library = new double[y.length];
    for (int i = 0; i < y.length; i++) {
      library[i] = Numbers.get(type, expected.data(), i);
    }
    // Its sums are of fewer bits, and rounded to the model's type.
    assertThat(distance(y, library)).isLessThanOrEqualTo(type == Encoding.BF16 ? 3e-3 : 1e-3);
  }

  private static void isPlain(float[] y, double[] expected, QuantizedTensor q, String backend) {
    double bound = backend.equals("cuda") ? 5e-4 : 1e-6 * Math.sqrt((double) q.matrix().k());
    assertThat(distance(y, expected)).isLessThanOrEqualTo(bound);
  }

  /** compressed-tensors' W8A8 with static activations: one scale of x, from the file. */
  @Test
  void multipliesAsCompressedTensorsDescribes(@TempDir Path dir) throws Exception {
    String name =
        Golden.cases("compressed_tensors").stream()
            .filter(c -> c.startsWith("w8") || c.startsWith("fp8_tensor"))
            .findFirst()
            .orElseThrow();
    Path golden = Golden.dir("compressed_tensors", name);
    Files.copy(golden.resolve("config.json"), dir.resolve("config.json"));
    MemorySegment half = MemorySegment.ofArray(new byte[] {0, 0, 0, 63}); // 0.5
    Tensor scale = new Tensor("blocks.0.to_q.input_scale", DType.F32, List.of(1L), half);
    try (SafetensorsFile file = SafetensorsFile.open(golden.resolve("model.safetensors"))) {
      List<Tensor> tensors = new ArrayList<>(file.tensors().values());
      tensors.add(scale);
      try (SafetensorsWriter writer =
          SafetensorsWriter.create(
              dir.resolve("model.safetensors"),
              tensors.stream().map(SafetensorsWriter.Entry::of).toList(),
              file.metadata())) {
        tensors.forEach(tensor -> writer.write(tensor.name(), tensor.data()));
        writer.commit();
      }
    }
    try (Checkpoint checkpoint = Checkpoint.open(dir);
        Device device = Device.of("reference", 1)) {
      QuantizedTensor q = checkpoint.quantized("blocks.0.to_q");
      Rounding rounding = q.inputRounding().orElseThrow();
      assertThat(rounding).isEqualTo(new Rounding(q.layout().encoding(), 0.5f, false));
      assertThat(checkpoint.quantized("blocks.0.proj").activations()).isEmpty();
      int k = Math.toIntExact(q.matrix().k());
      float[] x = new float[k];
      float[] rounded = new float[k];
      for (int i = 0; i < k; i++) {
        x[i] = (i - 250) * 0.37f; // some beyond the largest code of integers
        rounded[i] = rounding.round(Encoding.F32, x[i]);
      }
      Compute compute = q.activations().orElseThrow().compute();
      float[] y = new float[Math.toIntExact(q.matrix().n())];
      float[] expected = y.clone();
      try (Linear fixed = Linear.of(q, null, compute, device);
          Linear plain = Linear.of(q.withMatrix(m -> m, Encoding.F32), null, Compute.F32, device)) {
        fixed.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(y));
        plain.forward(MemorySegment.ofArray(rounded), 1, MemorySegment.ofArray(expected));
      }
      double[] exact = new double[expected.length];
      for (int i = 0; i < exact.length; i++) {
        exact[i] = expected[i];
      }
      // The weight itself dequantizes to bfloat16, which a product of codes does not go through.
      assertThat(distance(y, exact)).isLessThan(4e-3);
    }
  }

  @Test
  void whatIsNotCalibratedIsRefused() {
    try (Run run = new Run(new GoldenCase("quanto", "qint8_fp32"), "reference")) {
      QuantizedTensor q = run.weight("to_q");
      assertThat(q.inputRounding()).isEmpty();
      assertThatThrownBy(() -> Linear.of(q, null, Compute.I8_STATIC, run.device))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("to_q: found no static activations, expected I8");
    }
    try (Run run = new Run(new GoldenCase("quanto", "qint8_act_qint8_fp32"), "reference")) {
      QuantizedTensor q = run.weight("to_q");
      assertThatThrownBy(() -> Linear.of(q, null, Compute.F8, run.device))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found activations of I8, expected 8-bit floats");
    }
  }

  /** ComfyUI does not round x of a layer with this mark, so neither does a static product. */
  @Test
  void fullPrecisionLayersHaveNoStaticActivations(@TempDir Path dir) {
    Path file = dir.resolve("model.safetensors");
    byte[] mark =
        "{\"format\": \"float8_e4m3fn\", \"full_precision_matrix_mult\": true}"
            .getBytes(StandardCharsets.UTF_8);
    Tensor codes = tensor("a.weight", DType.F8_E4M3, List.of(2L, 4L), new byte[8]);
    Tensor scale = tensor("a.weight_scale", DType.F32, List.of(), new byte[] {0, 0, -128, 63});
    Tensor json = tensor("a.comfy_quant", DType.U8, List.of((long) mark.length), mark);
    try (SafetensorsWriter writer =
        SafetensorsWriter.create(
            file,
            Stream.of(codes, scale, json).map(SafetensorsWriter.Entry::of).toList(),
            Map.of())) {
      for (Tensor tensor : List.of(codes, scale, json)) {
        writer.write(tensor.name(), tensor.data());
      }
      writer.commit();
    }
    try (Checkpoint checkpoint = Checkpoint.open(file)) {
      assertThat(checkpoint.quantized("a").activations()).isEmpty();
    }
  }

  private static Tensor tensor(String name, DType type, List<Long> shape, byte[] data) {
    return new Tensor(name, type, shape, MemorySegment.ofArray(data));
  }

  private static double distance(float[] found, double[] expected) {
    double difference = 0;
    double norm = 0;
    for (int i = 0; i < found.length; i++) {
      difference += (found[i] - expected[i]) * (found[i] - expected[i]);
      norm += expected[i] * expected[i];
    }
    return Math.sqrt(difference / norm);
  }

  /** A case that is open, on one backend. */
  private static final class Run implements AutoCloseable {
    final GoldenCase golden;
    final Checkpoint checkpoint;
    final Device device;
    final SafetensorsFile inputs;

    Run(GoldenCase golden, String backend) {
      assumeTrue(
          Device.probe().stream().anyMatch(p -> p.backend().equals(backend) && p.available()),
          "no backend " + backend);
      this.golden = golden;
      checkpoint = Checkpoint.open(golden.dir());
      device = Device.of(backend, 2);
      inputs = SafetensorsFile.open(Golden.file("orig", "orig", "inputs.safetensors"));
    }

    Tensor x(String weight) {
      return inputs.tensors().get("x_" + weight);
    }

    QuantizedTensor weight(String weight) {
      QuantizedTensor q = checkpoint.quantized(golden.layer(checkpoint, weight));
      if (q.matrix().k() == x(weight).shape().get(1)) {
        return q;
      }
      List<Long> shape = new ArrayList<>(); // quanto does not store it
      golden
          .description()
          .path("sha256")
          .path(weight + ".dq")
          .path("shape")
          .forEach(size -> shape.add(size.asLong()));
      return GenericOperations.reshape(q, shape);
    }

    /** In the type that the library was given x in. */
    float[] forward(QuantizedTensor q, String weight, long rows, Compute compute) {
      Tensor bias = checkpoint.bias(q.name()).orElse(null);
      Encoding type = golden.inputType(q.dtype());
      int k = Math.toIntExact(q.matrix().k());
      MemorySegment x =
          MemorySegment.ofArray(new byte[Math.toIntExact(rows * k * type.bits() / 8)]);
      for (int i = 0; i < rows * k; i++) {
        Numbers.put(type, x, i, Numbers.get(Encoding.F32, x(weight).data(), i));
      }
      try (Linear linear = Linear.of(q, bias, compute, device)) {
        assertThat(linear.compute()).isEqualTo(compute);
        float[] y = new float[Math.toIntExact(rows * linear.outFeatures())];
        linear.forward(
            x, type, k, rows, MemorySegment.ofArray(y), Encoding.F32, linear.outFeatures());
        return y;
      }
    }

    /** y = Σ xq · wq · (xs · ws) + b in double: what scaled_mm computes. */
    double[] plain(QuantizedTensor q, String weight) {
      Rounding rounding = q.inputRounding().orElseThrow();
      int n = Math.toIntExact(q.matrix().n());
      int k = Math.toIntExact(q.matrix().k());
      long rows = ROWS;
      Tensor bias = checkpoint.bias(q.name()).orElse(null);
      double[] y = new double[Math.toIntExact(rows * n)];
      Encoding type = golden.inputType(q.dtype());
      double scale = MatrixValues.storedScale(q.matrix(), 0, 0);
      for (int i = 0; i < y.length; i++) {
        double sum = 0;
        for (int j = 0; j < k; j++) {
          float v = Numbers.get(Encoding.F32, x(weight).data(), (long) (i / n) * k + j);
          sum +=
              (double) rounding.round(type, HalfFloat.round(type, v))
                  * MatrixValues.decode(q.matrix(), i % n, j);
        }
        double b =
            bias == null
                ? 0
                : Numbers.get(bias.dtype().encoding().orElseThrow(), bias.data(), i % n);
        y[i] = sum * scale + b;
      }
      return y;
    }

    @Override
    public void close() {
      inputs.close();
      device.close();
      checkpoint.close();
    }
  }
}
