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
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.HalfFloat;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Formats of which there is no golden file, against their formulas; and pipelines of several
 * models.
 */
class FormulaFormatsTest {
  private static final int N = 6;
  private static final int K = 128;

  @TempDir Path temp;
  private final RandomTensors draft = new RandomTensors(7);

  private byte[] put(String name, DType dtype, int bytes, long... shape) {
    return draft.put(name, dtype, bytes, shape);
  }

  private float[] floats(String name, long... shape) {
    return draft.floats(name, DType.F32, shape);
  }

  private Path write(Path directory) throws IOException {
    return draft.write(directory, Map.of());
  }

  private static float[] dequantized(QuantizedTensor layer) {
    return RandomTensors.dequantized(layer);
  }

  /** Code k of a row that is one little-endian stream of bits. */
  private static int code(byte[] words, int row, int column, int bits) {
    int code = 0;
    for (int i = 0; i < bits; i++) {
      int at = row * K * bits + column * bits + i;
      code |= (words[at / 8] >> at % 8 & 1) << i;
    }
    return code;
  }

  @ParameterizedTest
  @ValueSource(ints = {2, 3, 4, 5, 6, 8})
  void mlxAffineIsScaleTimesCodePlusBias(int bits) throws IOException {
    int group = 32;
    byte[] words = put("a.weight", DType.U32, N * K * bits / 8, N, K * bits / 32);
    float[] scales = floats("a.scales", N, K / group);
    float[] biases = floats("a.biases", N, K / group);
    write(temp);
    Files.writeString(
        temp.resolve("config.json"),
        "{\"quantization\": {\"group_size\": 64, \"bits\": 4, \"a\": {\"group_size\": 32, \"bits\": "
            + bits
            + "}}}");
    try (Checkpoint checkpoint = Checkpoint.open(temp)) {
      QuantizedTensor layer = checkpoint.quantized("a");
      assertThat(layer.layout().name()).isEqualTo("mlx.affine." + bits + "bit");
      float[] found = dequantized(layer);
      for (int i = 0; i < N * K; i++) {
        int g = i / K * (K / group) + i % K / group;
        float product = scales[g] * code(words, i / K, i % K, bits);
        assertThat(found[i]).isEqualTo(product + biases[g]);
      }
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"mxfp4", "mxfp8", "nvfp4"})
  void mlxBlocksAreFloatTimesScale(String mode) throws IOException {
    int bits = mode.equals("mxfp8") ? 8 : 4;
    int group = mode.equals("nvfp4") ? 16 : 32;
    byte[] words = put("a.weight", DType.U32, N * K * bits / 8, N, K * bits / 32);
    byte[] scales = put("a.scales", DType.U8, N * K / group, N, K / group);
    for (int i = 0; i < scales.length; i++) {
      scales[i] = (byte) (mode.equals("nvfp4") ? i % 120 : 100 + i);
    }
    write(temp);
    Files.writeString(
        temp.resolve("config.json"), "{\"quantization\": {\"mode\": \"" + mode + "\"}}");
    Encoding codes = bits == 8 ? Encoding.F8_E4M3 : Encoding.F4_E2M1;
    Encoding type = mode.equals("nvfp4") ? Encoding.F8_E4M3 : Encoding.F8_E8M0;
    try (Checkpoint checkpoint = Checkpoint.open(temp)) {
      float[] found = dequantized(checkpoint.quantized("a"));
      for (int i = 0; i < N * K; i++) {
        int g = i / K * (K / group) + i % K / group;
        float value =
            Codebooks.decode(codes, code(words, i / K, i % K, bits))
                * Codebooks.decode(type, scales[g] & 0xFF);
        assertThat((Float) found[i]).isEqualTo((Float) HalfFloat.round(Encoding.BF16, value));
      }
    }
  }

  @Test
  void blockScaledFloat8MultipliesByItsInverseScale() throws IOException {
    int n = 130;
    int k = 140;
    byte[] codes = put("a.weight", DType.F8_E4M3, n * k, n, k);
    float[] scales = floats("a.weight_scale_inv", 2, 2);
    write(temp);
    try (Checkpoint checkpoint = Checkpoint.open(temp)) {
      float[] found = dequantized(checkpoint.quantized("a"));
      for (int i = 0; i < n * k; i++) {
        float scale = scales[i / k / 128 * 2 + i % k / 128];
        float value = Codebooks.decode(Encoding.F8_E4M3, codes[i] & 0xFF) * scale;
        assertThat((Float) found[i]).isEqualTo((Float) HalfFloat.round(Encoding.BF16, value));
      }
    }
    draft.tensors().removeLast();
    floats("a.weight_scale_inv", 1, 2);
    Path path = write(temp);
    assertThatThrownBy(() -> Checkpoint.open(path))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("'a.weight_scale_inv'")
        .hasMessageContaining("found shape [1, 2]")
        .hasMessageContaining("expected shape [2, 2]");
  }

  @Test
  void theInputIsMultipliedBeforeTheWeight() throws IOException {
    put("a.weight", DType.U8, 16 * 16 / 2, 16, 8);
    byte[] scales = put("a.weight_scale", DType.U8, 512, 128, 4);
    Arrays.fill(scales, (byte) 0x38); // 1
    float[] global = floats("a.weight_scale_2");
    float[] multiplier = floats("a.pre_quant_scale", 16);
    byte[] mark = "{\"format\": \"nvfp4\"}".getBytes(StandardCharsets.UTF_8);
    draft
        .tensors()
        .add(
            new Tensor(
                "a.comfy_quant",
                DType.U8,
                List.of((long) mark.length),
                MemorySegment.ofArray(mark)));
    try (Checkpoint checkpoint = Checkpoint.open(write(temp));
        Device device = Device.of("reference", 1)) {
      QuantizedTensor layer = checkpoint.quantized("a");
      assertThat(layer.inputMultiplier()).isPresent();
      assertThat(layer.matrix().globalScale()).isEqualTo(global[0]);
      float[] w = dequantized(layer);
      float[] x = new float[2 * 16];
      x[3] = 2;
      x[16 + 5] = -1;
      float[] y = new float[2 * 16];
      try (Linear linear = Linear.of(layer, null, Compute.F32, device)) {
        linear.forward(MemorySegment.ofArray(x), 2, MemorySegment.ofArray(y));
      }
      for (int n = 0; n < 16; n++) {
        assertThat(y[n]).isEqualTo(2 * multiplier[3] * w[n * 16 + 3]);
        assertThat(y[16 + n]).isEqualTo(-multiplier[5] * w[n * 16 + 5]);
      }
    }
  }

  @Test
  void aPipelineOpensAsOneCheckpoint() throws IOException {
    put("a.weight", DType.F8_E4M3, 4, 2, 2);
    floats("b.weight", 2, 2);
    write(temp.resolve("transformer"));
    write(temp.resolve("text_encoder"));
    Files.createDirectories(temp.resolve("scheduler"));
    Files.writeString(
        temp.resolve("model_index.json"),
        "{\"_class_name\": \"P\", \"scheduler\": [\"d\", \"S\"], \"transformer\": [\"d\", \"T\"],"
            + " \"text_encoder\": [\"t\", \"E\"], \"../evil\": [\"d\", \"T\"]}");
    try (Checkpoint checkpoint = Checkpoint.open(temp);
        Device device = Device.of("reference", 1);
        Linear linear = checkpoint.linear("transformer/b", device)) {
      assertThat(checkpoint.layers()).containsOnlyKeys("transformer/a", "text_encoder/a");
      assertThat(checkpoint.plain())
          .containsOnlyKeys("transformer/b.weight", "text_encoder/b.weight");
      assertThat(checkpoint.files()).hasSize(2);
      assertThat(checkpoint.quantized("text_encoder/a.weight").name()).isEqualTo("text_encoder/a");
      assertThat(linear.outFeatures()).isEqualTo(2);
    }
    Files.writeString(temp.resolve("model_index.json"), "{\"scheduler\": [\"d\", \"S\"]}");
    assertThatThrownBy(() -> Checkpoint.open(temp))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("model_index.json")
        .hasMessageContaining("no component");
  }
}
