package dev.gatun.kernel.codec;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Golden;
import dev.gatun.checkpoint.TensorFile;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Locale;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Blocks decoded and quantized against what ggml wrote and decoded. */
class GgufBlocksTest {
  private static TensorFile model;
  private static TensorFile reference;
  private static JsonNode description;

  @BeforeAll
  static void open() {
    model = TensorFile.open(Golden.file("gguf", "all", "model.gguf"));
    reference = TensorFile.open(Golden.file("gguf", "all", "ref.safetensors"));
    description = Golden.description("gguf", "all");
  }

  @AfterAll
  static void close() {
    model.close();
    reference.close();
  }

  /** As the golden file spells it: {@code q4_0}, {@code q4_K}. */
  private static String spelled(Encoding encoding) {
    return encoding.name().toLowerCase(Locale.ROOT).replaceFirst("_k$", "_K");
  }

  private static float[] decoded(Encoding encoding, MemorySegment data) {
    int blocks = Math.toIntExact(data.byteSize() / encoding.blockBytes());
    float[] all = new float[blocks * encoding.blockElements()];
    for (int i = 0; i < blocks; i++) {
      float[] block = new float[encoding.blockElements()];
      GgufBlocks.decode(encoding, data, (long) i * encoding.blockBytes(), block);
      System.arraycopy(block, 0, all, i * block.length, block.length);
    }
    return all;
  }

  private static String sha256(float[] values) {
    ByteBuffer bytes = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
    bytes.asFloatBuffer().put(values);
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(bytes.array()));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  @ParameterizedTest
  @EnumSource(
      names = {"F.*", "BF16", "[IU]\\d", "NF4", "Q8_1", "Q8_K"},
      mode = EnumSource.Mode.MATCH_NONE)
  void decodesToTheLibrarysBits(Encoding encoding) {
    for (String rows : List.of("a", "b", "e")) {
      String name = rows + "." + spelled(encoding);
      float[] ours = decoded(encoding, model.tensors().get(name).data());
      String golden = description.path("sha256").path(name + ".dq").path("sha256").asText();
      if (golden.isEmpty()) {
        Tensor whole = reference.tensors().get(name + ".dq");
        golden = sha256(whole.data().toArray(ValueLayout.JAVA_FLOAT_UNALIGNED));
      }
      assertThat(sha256(ours)).as(name).isEqualTo(golden);
    }
  }

  /** What the library's blocks were made of. */
  private static float[] original(String rows) {
    Tensor tensor = model.tensors().get(rows + ".f32");
    return tensor.data().toArray(ValueLayout.JAVA_FLOAT_UNALIGNED);
  }

  private static MemorySegment quantized(Encoding encoding, float[] x) {
    int elements = encoding.blockElements();
    byte[] bytes = new byte[x.length / elements * encoding.blockBytes()];
    MemorySegment out = MemorySegment.ofArray(bytes);
    for (int i = 0; i < x.length / elements; i++) {
      float[] block = Arrays.copyOfRange(x, i * elements, (i + 1) * elements);
      GgufQuantizer.encode(encoding, block, out, (long) i * encoding.blockBytes());
    }
    return out;
  }

  @ParameterizedTest
  @EnumSource(names = {"Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4", "NVFP4"})
  void quantizesToTheLibrarysBytes(Encoding encoding) {
    for (String rows : List.of("a", "b", "e")) {
      MemorySegment ours = quantized(encoding, original(rows));
      MemorySegment golden = model.tensors().get(rows + "." + spelled(encoding)).data();
      assertThat(ours.mismatch(golden)).as("%s.%s", rows, encoding).isEqualTo(-1);
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"Q4_K", "Q6_K"})
  void searchesBlocksWithNoMoreErrorThanTheLibrarys(Encoding encoding) {
    for (String rows : List.of("a", "b", "e")) {
      float[] x = original(rows);
      float[] ours = decoded(encoding, quantized(encoding, x));
      float[] theirs =
          decoded(encoding, model.tensors().get(rows + "." + spelled(encoding)).data());
      assertThat(rmse(x, ours)).as("%s.%s", rows, encoding).isLessThanOrEqualTo(rmse(x, theirs));
    }
  }

  private static double rmse(float[] x, float[] y) {
    double sum = 0;
    for (int i = 0; i < x.length; i++) {
      double difference = (double) x[i] - y[i];
      sum += difference * difference;
    }
    return Math.sqrt(sum / x.length);
  }
}
