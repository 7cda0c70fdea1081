package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.layout.GenericOperations;
import dev.gatun.layout.LayoutRegistry;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** GGUF weights used as any other checkpoint's, against ggml's own numbers. */
class GgufCheckpointTest {
  private static Checkpoint checkpoint;
  private static TensorFile reference;
  private static TensorFile inputs;
  private static Device device;

  @TempDir private Path temp;

  @BeforeAll
  static void open() {
    checkpoint = Checkpoint.open(Golden.file("gguf", "all", "model.gguf"));
    reference = TensorFile.open(Golden.file("gguf", "all", "ref.safetensors"));
    inputs = TensorFile.open(Golden.file("orig", "orig", "inputs.safetensors"));
    device = Device.of("reference", 1);
  }

  @AfterAll
  static void close() {
    checkpoint.close();
    reference.close();
    inputs.close();
    device.close();
  }

  static List<String> layers() {
    try (Checkpoint c = Checkpoint.open(Golden.file("gguf", "all", "model.gguf"))) {
      return List.copyOf(c.layers().keySet());
    }
  }

  private static float[] floats(Tensor tensor) {
    return tensor.data().toArray(ValueLayout.JAVA_FLOAT_UNALIGNED);
  }

  /** The first three rows of the inputs that fit the weight. */
  private static float[] x(String layer, int k) {
    String of = Map.of('a', "x_to_q", 'b', "x_proj", 'e', "x_edge").get(layer.charAt(0));
    return Arrays.copyOf(floats(inputs.tensors().get(of)), 3 * k);
  }

  @ParameterizedTest
  @MethodSource("layers")
  void multipliesAsTheLibrarysOwnWeightsDo(String layer) {
    QuantizedTensor weight = checkpoint.quantized(layer);
    int k = (int) weight.matrix().k();
    int n = (int) weight.matrix().n();
    float[] y = new float[3 * n];
    try (Linear linear = checkpoint.linear(layer, device)) {
      linear.forward(MemorySegment.ofArray(x(layer, k)), 3, MemorySegment.ofArray(y));
    }
    float[] golden = floats(reference.tensors().get(layer + ".y_dq32"));
    assertThat(relative(y, golden)).isLessThanOrEqualTo(1e-6 * Math.sqrt(k));
  }

  private static double relative(float[] y, float[] golden) {
    double noise = 0;
    double signal = 0;
    for (int i = 0; i < y.length; i++) {
      noise += Math.pow((double) y[i] - golden[i], 2);
      signal += Math.pow(golden[i], 2);
    }
    return noise == 0 ? 0 : Math.sqrt(noise / signal);
  }

  @ParameterizedTest
  @MethodSource("layers")
  void slicesAndGathersRowsOfBlocks(String layer) {
    QuantizedTensor weight = checkpoint.quantized(layer);
    int k = (int) weight.matrix().k();
    float[] whole = new float[(int) weight.matrix().n() * k];
    GenericOperations.dequantize(weight, device, MemorySegment.ofArray(whole), Encoding.F32);
    float[] rows = new float[2 * k];
    GenericOperations.dequantize(
        GenericOperations.slice(weight, 5, 2), device, MemorySegment.ofArray(rows), Encoding.F32);
    assertThat(rows).isEqualTo(Arrays.copyOfRange(whole, 5 * k, 7 * k));
    device
        .backend()
        .embedding(weight.matrix(), new long[] {3, 0}, MemorySegment.ofArray(rows), Encoding.F32);
    assertThat(Arrays.copyOf(rows, k)).isEqualTo(Arrays.copyOfRange(whole, 3 * k, 4 * k));
    assertThat(Arrays.copyOfRange(rows, k, 2 * k)).isEqualTo(Arrays.copyOf(whole, k));
    assertThat(weight.layout().name())
        .isEqualTo("gguf." + layer.substring(2).toLowerCase(Locale.ROOT));
    assertThat(LayoutRegistry.get().explain(weight, 1, device).kernel())
        .contains("linear_f32_" + layer.substring(2).toLowerCase(Locale.ROOT) + "__reference");
  }

  @Test
  void readsPlainTypesAsTensors() {
    assertThat(checkpoint.plain().get("a.f16").dtype()).isEqualTo(DType.F16);
    assertThat(checkpoint.plain().get("a.bf16").dtype()).isEqualTo(DType.BF16);
    assertThat(checkpoint.plain()).hasSize(9);
    assertThat(checkpoint.unclaimed()).isEmpty();
  }

  /** One block of 64 codes of 1 with scales of 1: {@code 0.5}, doubled and halved. */
  private static GgufBytes nvfp4(float scale, int scales) {
    byte[] block = new byte[36];
    Arrays.fill(block, 0, 4, (byte) 0x38);
    Arrays.fill(block, 4, 36, (byte) 0x11);
    return GgufBytes.start(3, 2, 0)
        .info("l.weight", 40, 0, 64)
        .info("l.scale", 0, 64, scales)
        .align(32)
        .raw(block)
        .align(32)
        .u32(Float.floatToRawIntBits(scale))
        .zeros(60);
  }

  @Test
  void multipliesNvfp4ByItsTensorsScale() throws IOException {
    Path path = Files.write(temp.resolve("n.gguf"), nvfp4(3f, 1).bytes());
    try (Checkpoint nvfp4 = Checkpoint.open(path);
        Linear linear = nvfp4.linear("l", Compute.F32, device)) {
      float[] x = new float[64];
      float[] y = new float[1];
      x[7] = 1;
      linear.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(y));
      assertThat(y[0]).isEqualTo(1.5f);
      assertThat(nvfp4.plain()).isEmpty();
    }
    Path two = Files.write(temp.resolve("two.gguf"), nvfp4(3f, 2).bytes());
    assertThatThrownBy(() -> Checkpoint.open(two).close())
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("'l.scale'");
  }

  @Test
  void lets1DimensionalAndStackedWeightsBeRead() throws IOException {
    byte[] bytes =
        GgufBytes.start(3, 2, 0)
            .info("one", 2, 0, 64)
            .info("experts.weight", 2, 64, 32, 2, 3)
            .align(32)
            .zeros(64 + 128)
            .bytes();
    try (Checkpoint c = Checkpoint.open(Files.write(temp.resolve("m.gguf"), bytes))) {
      assertThat(c.quantized("one").matrix().n()).isEqualTo(1);
      assertThat(c.quantized("experts").shape()).isEqualTo(List.of(3L, 2L, 32L));
      assertThat(c.quantized("experts").matrix().k()).isEqualTo(64);
      assertThat(c.quantized("experts").byteSize()).isEqualTo(108);
    }
  }
}
