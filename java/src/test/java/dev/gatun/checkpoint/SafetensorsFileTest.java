package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.io.IOException;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;

class SafetensorsFileTest {
  /**
   * The reference reader keeps the last of two equal keys; the format's text forbids them, and so
   * do we.
   */
  private static final Set<String> STRICTER = Set.of("dup_keys");

  @TempDir Path temp;

  static byte[] file(String header, int dataBytes) {
    byte[] json = header.getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(8 + json.length + dataBytes)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putLong(json.length)
        .put(json)
        .array();
  }

  private Path write(byte[] bytes) throws IOException {
    return Files.write(temp.resolve("t.safetensors"), bytes);
  }

  @TestFactory
  Stream<DynamicTest> agreesWithTheReferenceReader() {
    JsonNode verdicts = Json.file(Golden.file("safetensors", "safetensors", "verdicts.json"));
    assertThat(verdicts).hasSizeGreaterThanOrEqualTo(31);
    List<DynamicTest> tests = new ArrayList<>();
    for (Map.Entry<String, JsonNode> verdict : verdicts.properties()) {
      Path path = Golden.file("safetensors", "safetensors", verdict.getKey() + ".bin");
      boolean good =
          verdict.getValue().path("ok").asBoolean() && !STRICTER.contains(verdict.getKey());
      tests.add(
          DynamicTest.dynamicTest(
              verdict.getKey(),
              () -> {
                if (!good) {
                  assertThatThrownBy(() -> SafetensorsFile.open(path).close())
                      .isInstanceOf(GatunException.class)
                      .hasMessageStartingWith(path.toString())
                      .hasMessageContaining("found")
                      .hasMessageContaining("expected")
                      .message()
                      .doesNotContain("\n");
                  return;
                }
                List<String> keys = new ArrayList<>();
                verdict.getValue().path("keys").forEach(key -> keys.add(key.asText()));
                try (SafetensorsFile file = SafetensorsFile.open(path)) {
                  assertThat(file.tensors().keySet()).containsExactlyInAnyOrderElementsOf(keys);
                }
              }));
    }
    return tests.stream();
  }

  @Test
  void readsEveryTypeOfTheFormat() {
    try (SafetensorsFile file =
        SafetensorsFile.open(Golden.file("safetensors", "safetensors", "all_dtypes.safetensors"))) {
      assertThat(file.tensors()).hasSizeGreaterThan(10);
      for (Tensor tensor : file.tensors().values()) {
        assertThat(tensor.data().byteSize() * 8)
            .isEqualTo(tensor.elements() * tensor.dtype().bits());
      }
    }
  }

  @Test
  void readsUnalignedTensors() throws IOException {
    byte[] bytes =
        file(
            "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                + "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}",
            5);
    ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).putFloat(bytes.length - 4, 1.5f);
    try (SafetensorsFile file = SafetensorsFile.open(write(bytes))) {
      assertThat(file.tensors().get("b").data().get(ValueLayout.JAVA_FLOAT_UNALIGNED, 0))
          .isEqualTo(1.5f);
    }
  }

  @Test
  void opensAFileOfMoreThanFourGibibytes() throws IOException {
    long bytes = (1L << 32) + 4096;
    String header =
        "{\"big\":{\"dtype\":\"U8\",\"shape\":["
            + bytes
            + "],\"data_offsets\":[0,"
            + bytes
            + "]},"
            + "\"last\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":["
            + bytes
            + ","
            + (bytes + 4)
            + "]}}";
    Path path = write(file(header, 0));
    try (FileChannel channel = FileChannel.open(path, StandardOpenOption.WRITE)) {
      ByteBuffer number = ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putFloat(7f).flip();
      channel.write(number, channel.size() + bytes); // the rest is a hole in the file
    }
    try (SafetensorsFile file = SafetensorsFile.open(path)) {
      assertThat(file.tensors().get("big").data().byteSize()).isEqualTo(bytes);
      assertThat(file.tensors().get("last").data().get(ValueLayout.JAVA_FLOAT_UNALIGNED, 0))
          .isEqualTo(7f);
    }
  }

  @Test
  void noticesAFileThatWasCutShort() throws IOException {
    Path path =
        write(file("{\"a\":{\"dtype\":\"U8\",\"shape\":[100],\"data_offsets\":[0,100]}}", 100));
    try (SafetensorsFile file = SafetensorsFile.open(path)) {
      file.verifyLength();
      try (FileChannel channel = FileChannel.open(path, StandardOpenOption.WRITE)) {
        channel.truncate(20);
      }
      assertThatThrownBy(file::verifyLength)
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found 20 bytes");
    }
  }

  @Test
  void tensorsEndWithTheFile() throws IOException {
    SafetensorsFile file =
        SafetensorsFile.open(
            write(file("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1)));
    Tensor tensor = file.tensors().get("a");
    file.close();
    file.close();
    assertThatThrownBy(() -> tensor.data().get(ValueLayout.JAVA_BYTE, 0))
        .isInstanceOf(IllegalStateException.class);
  }

  @Test
  void refusesWhatIsNoFile() {
    assertThatThrownBy(() -> SafetensorsFile.open(temp.resolve("none")))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("no such file");
    assertThatThrownBy(() -> SafetensorsFile.open(temp)).isInstanceOf(GatunException.class);
  }

  @Test
  void refusesDeepJson() throws IOException {
    String deep = "[".repeat(200_000) + "]".repeat(200_000);
    Path path =
        write(
            file(
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0],\"x\":"
                    + deep
                    + "}}",
                0));
    assertThatThrownBy(() -> SafetensorsFile.open(path)).isInstanceOf(GatunException.class);
  }

  @Test
  void namesWithControlCharactersStayOnOneLine() throws IOException {
    Path path =
        write(file("{\"a\\nb\":{\"dtype\":\"F7\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0));
    assertThatThrownBy(() -> SafetensorsFile.open(path))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("'a\\u000ab'")
        .hasMessageNotContaining("\n");
  }
}
