package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.HalfFloat;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Packed codes of which there is no golden file, against the formulas of their libraries. */
class FormulaPackedTest {
  @TempDir Path temp;
  private final RandomTensors draft = new RandomTensors(11);

  /** {@code count} bits from bit {@code at} of a little-endian stream on. */
  private static int bits(byte[] data, long at, int count) {
    int value = 0;
    for (int i = 0; i < count; i++) {
      long bit = at + i;
      value |= (data[(int) (bit / 8)] >> bit % 8 & 1) << i;
    }
    return value;
  }

  @ParameterizedTest
  @CsvSource({"F16,32", "BF16,64", "F32,128"})
  void torchaosPlainWordsAreCodeLessZeroTimesScale(DType type, int group) throws IOException {
    int n = 5;
    int k = 128;
    byte[] words = draft.put("m.a._weight_qdata", DType.I32, n * k / 2, n, k / 8);
    float[] scales = draft.floats("m.a._weight_scale", type, k / group, n);
    byte[] zeros = draft.put("m.a._weight_zero_point", DType.I8, k / group * n, k / group, n);
    for (int i = 0; i < zeros.length; i++) {
      zeros[i] = (byte) (i % 16);
    }
    String entry =
        "{\"_type\": \"Int4PlainInt32Tensor\", \"_data\": {\"block_size\": [1, "
            + group
            + "], \"shape\": [5, 128]}, \"_tensor_data_names\": [\"qdata\", \"scale\","
            + " \"zero_point\"]}";
    draft.write(temp, Map.of("tensor_names", "[\"m.a.weight\"]", "m.a.weight", entry));
    try (Checkpoint checkpoint = Checkpoint.open(temp)) {
      QuantizedTensor layer = checkpoint.quantized("m.a");
      assertThat(layer.layout().name()).isEqualTo("torchao.Int4PlainInt32Tensor");
      assertThat(layer.shape()).containsExactly(5L, 128L);
      float[] found = RandomTensors.dequantized(layer);
      Encoding result = type.encoding().orElseThrow();
      for (int i = 0; i < n * k; i++) {
        int g = i % k / group * n + i / k;
        float value = (bits(words, 4L * i, 4) - zeros[g]) * scales[g];
        assertThat(found[i]).isEqualTo(HalfFloat.round(result, value));
      }
    }
  }

  @Test
  void compressedTensorsMxfp4IsFloatTimesPowerOfTwo() throws IOException {
    int n = 3;
    int k = 96;
    byte[] codes = draft.put("a.weight_packed", DType.U8, n * k / 2, n, k / 2);
    byte[] scales = draft.put("a.weight_scale", DType.U8, n * k / 32, n, k / 32);
    for (int i = 0; i < scales.length; i++) {
      scales[i] = (byte) (120 + i);
    }
    draft.write(temp, Map.of());
    try (Checkpoint checkpoint = Checkpoint.open(temp)) {
      QuantizedTensor layer = checkpoint.quantized("a");
      assertThat(layer.layout().name()).isEqualTo("compressed-tensors.mxfp4-pack-quantized");
      assertThat(layer.dtype()).isEqualTo(Encoding.BF16);
      float[] found = RandomTensors.dequantized(layer);
      for (int i = 0; i < n * k; i++) {
        float value =
            Codebooks.decode(Encoding.F4_E2M1, bits(codes, 4L * i, 4))
                * Math.scalb(1f, (scales[i / 32] & 0xFF) - 127);
        assertThat(found[i]).isEqualTo(value);
      }
    }
  }

  /** 32 codes lie in three words of a column, and zero points in three words of a row. */
  @ParameterizedTest
  @CsvSource({"gptq,false", "gptq,true", "gptq_v2,false", "gptq_v2,true"})
  void threeBitsOfGptqCrossWords(String version, boolean outOfOrder) throws IOException {
    int n = 32;
    int k = 96;
    int groups = 3;
    byte[] words = draft.put("a.qweight", DType.I32, k / 32 * 3 * n * 4, k / 32 * 3, n);
    byte[] zeros = draft.put("a.qzeros", DType.I32, groups * 3 * 4, groups, 3);
    float[] scales = draft.floats("a.scales", DType.F16, groups, n);
    int[] index = new int[k];
    ByteBuffer stored = ByteBuffer.allocate(4 * k).order(ByteOrder.LITTLE_ENDIAN);
    for (int i = 0; i < k; i++) {
      index[i] = outOfOrder ? (i * 5 + 1) % groups : i / 32;
      stored.putInt(4 * i, index[i]);
    }
    draft.put("a.g_idx", DType.I32, stored.array(), k);
    draft.write(temp, Map.of());
    Files.writeString(
        temp.resolve("quantize_config.json"),
        "{\"bits\": 3, \"group_size\": 32, \"checkpoint_format\": \"" + version + "\"}");
    try (Checkpoint checkpoint = Checkpoint.open(temp)) {
      QuantizedTensor layer = checkpoint.quantized("a");
      assertThat(layer.layout().name()).isEqualTo("gptq.3bit");
      float[] found = RandomTensors.dequantized(layer);
      for (int o = 0; o < n; o++) {
        for (int c = 0; c < k; c++) {
          int code = 0;
          for (int bit = 0; bit < 3; bit++) {
            int at = c % 32 * 3 + bit; // of the 96 bits of three words, one below the other
            long word = (c / 32 * 3L + at / 32) * n + o;
            code |= bits(words, word * 32 + at % 32, 1) << bit;
          }
          int g = index[c];
          int zero = bits(zeros, g * 96L + o * 3L, 3);
          if (version.equals("gptq")) {
            zero = zero + 1 & 7;
          }
          float value = HalfFloat.round(Encoding.F16, (code - zero) * scales[g * n + o]);
          assertThat(found[o * k + c]).isEqualTo(value);
        }
      }
    }
  }
}
