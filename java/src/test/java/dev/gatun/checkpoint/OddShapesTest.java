package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.kernel.codec.Codebooks;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Weights of one, two and four dimensions, of odd sizes, in every type that codes are stored as;
 * and settings whose sizes overflow.
 */
class OddShapesTest {
  @TempDir Path temp;
  private final RandomTensors draft = new RandomTensors(5);

  private static byte[] utf8(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  static Stream<Arguments> blocks() {
    return Stream.of(DType.U8, DType.I8, DType.BF16, DType.F16, DType.F32, DType.F64)
        .flatMap(
            storage ->
                Stream.of(32, 64, 128, 256, 512, 1024, 2048, 4096)
                    .map(block -> Arguments.of(storage, block)));
  }

  /** 3 x 1373 numbers: rows end within bytes, and blocks go from one row into the next. */
  @ParameterizedTest
  @MethodSource("blocks")
  void bitsandbytesHasBlocksOfTheFlattenedWeight(DType storage, int block) throws IOException {
    int elements = 3 * 1373;
    int item = storage.bits() / 8;
    int bytes = Math.ceilDiv(Math.ceilDiv(elements, 2), item) * item;
    byte[] codes = draft.put("a.weight", storage, bytes, bytes / item, 1);
    float[] absmax = draft.floats("a.weight.absmax", DType.F32, Math.ceilDiv(elements, block));
    fp4State("[3, 1373]", block);
    float[] found = read(List.of(3L, 1373L));
    for (int i = 0; i < elements; i++) {
      int code = codes[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15;
      assertThat(found[i]).isEqualTo(Codebooks.decode(Encoding.FP4, code) * absmax[i / block]);
    }
  }

  private void fp4State(String shape, int block) {
    MemorySegment map = MemorySegment.ofArray(draft.put("a.weight.quant_map", DType.F32, 64, 16));
    float[] table = Codebooks.table(Encoding.FP4);
    for (int i = 0; i < 16; i++) {
      map.set(WriterSupport.FLOAT, 4L * i, table[i]);
    }
    byte[] state =
        utf8(
            "{\"quant_type\": \"fp4\", \"blocksize\": "
                + block
                + ", \"dtype\": \"float32\", \"shape\": "
                + shape
                + "}");
    draft.put("a.weight.quant_state.bitsandbytes__fp4", DType.U8, state, state.length);
  }

  private float[] read(List<Long> shape) throws IOException {
    draft.write(temp, Map.of());
    try (Checkpoint checkpoint = Checkpoint.open(temp)) {
      QuantizedTensor layer = checkpoint.quantized("a");
      assertThat(layer.shape()).isEqualTo(shape);
      return RandomTensors.dequantized(layer);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"[37]", "[1, 37]", "[5, 3, 2, 3]"})
  void bitsandbytesWeightsHaveAnyNumberOfDimensions(String shape) throws IOException {
    List<Long> sizes =
        Arrays.stream(shape.replaceAll("[\\[\\] ]", "").split(",", -1)).map(Long::valueOf).toList();
    int elements = Math.toIntExact(sizes.stream().reduce(1L, Math::multiplyExact));
    byte[] codes =
        draft.put("a.weight", DType.U8, Math.ceilDiv(elements, 2), (elements + 1) / 2, 1);
    float[] absmax = draft.floats("a.weight.absmax", DType.F32, Math.ceilDiv(elements, 32));
    fp4State(shape, 32);
    float[] found = read(sizes);
    for (int i = 0; i < elements; i++) {
      int code = codes[i / 2] >> (i % 2 == 0 ? 4 : 0) & 15;
      assertThat(found[i]).isEqualTo(Codebooks.decode(Encoding.FP4, code) * absmax[i / 32]);
    }
  }

  /** One scale per output channel, whatever follows it. */
  @ParameterizedTest
  @CsvSource({"7", "3x5", "1x5", "4x3x3x2"})
  void quantoAndComfyuiScaleTheFirstDimension(String text) throws IOException {
    long[] shape = Stream.of(text.split("x", -1)).mapToLong(Long::parseLong).toArray();
    int elements = (int) LongStream.of(shape).reduce(1, Math::multiplyExact);
    int n = shape.length == 1 ? 1 : (int) shape[0];
    long[] ones = LongStream.of(shape).map(size -> 1).toArray();
    ones[0] = n;
    byte[] quanto = draft.put("a.weight._data", DType.I8, elements, shape);
    float[] scales =
        n == 1
            ? draft.floats("a.weight._scale", DType.F32)
            : draft.floats("a.weight._scale", DType.F32, ones);
    byte[] comfy = draft.put("b.weight", DType.F8_E5M2, elements, shape);
    for (int i = 0; i < elements; i++) {
      comfy[i] &= 0x3F; // no NaN, no infinity
    }
    float[] scale = draft.floats("b.weight_scale", DType.F32);
    byte[] mark = utf8("{\"format\": \"float8_e5m2\"}");
    draft.put("b.comfy_quant", DType.U8, mark, mark.length);
    draft.write(temp, Map.of());
    try (Checkpoint checkpoint = Checkpoint.open(temp)) {
      List<Long> sizes = LongStream.of(shape).boxed().toList();
      assertThat(checkpoint.quantized("a").shape()).isEqualTo(sizes);
      assertThat(checkpoint.quantized("b").shape()).isEqualTo(sizes);
      float[] a = RandomTensors.dequantized(checkpoint.quantized("a"));
      float[] b = RandomTensors.dequantized(checkpoint.quantized("b"));
      for (int i = 0; i < elements; i++) {
        assertThat(a[i]).isEqualTo(quanto[i] * scales[i / (elements / n)]);
        assertThat(b[i]).isEqualTo(Codebooks.decode(Encoding.F8_E5M2, comfy[i] & 0xFF) * scale[0]);
      }
    }
  }

  /** ComfyUI-GGUF flattens what ggml cannot hold, and says what it was. */
  @Test
  void ggufWeightsHaveTheShapeThatTheMetadataGives() throws IOException {
    Path path = temp.resolve("model.gguf");
    String key = "comfy.gguf.orig_shape.c.weight";
    Files.write(path, reshaped(key, 4, 2, 2, 4));
    try (Checkpoint checkpoint = Checkpoint.open(path)) {
      assertThat(checkpoint.quantized("c").shape()).containsExactly(4L, 2L, 2L, 4L);
      assertThat(RandomTensors.dequantized(checkpoint.quantized("c"))).hasSize(64);
    }
    Files.write(path, reshaped(key, 4, 2, 2, 5));
    assertThatThrownBy(() -> Checkpoint.open(path))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("'c.weight'")
        .hasMessageContaining("[4, 2, 2, 5]");
  }

  private static byte[] reshaped(String key, int... shape) {
    GgufBytes bytes = GgufBytes.start(3, 1, 1).string(key).u32(9).u32(5).u64(shape.length);
    for (int size : shape) {
      bytes.u32(size);
    }
    int q80 = 8;
    return bytes.info("c.weight", q80, 0, 32, 2).align(32).zeros(2 * 34).align(32).bytes();
  }

  @Test
  void sizesThatOverflowAreRefused() throws IOException {
    draft.put("a.weight", DType.U32, 6 * 16 * 4, 6, 16);
    draft.floats("a.scales", DType.F32, 6, 2);
    draft.floats("a.biases", DType.F32, 6, 2);
    draft.write(temp, Map.of());
    for (String group : List.of("4611686018427387904", "9223372036854775807", "0", "-1")) {
      Files.writeString(
          temp.resolve("config.json"), "{\"quantization\": {\"group_size\": " + group + "}}");
      assertThatThrownBy(() -> Checkpoint.open(temp))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("'a.weight'")
          .hasMessageContaining("groups of " + group);
    }
  }
}
