package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.GatunException;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class SafetensorsWriterTest {
  private static final List<SafetensorsWriter.Entry> TWO_BYTES =
      List.of(new SafetensorsWriter.Entry("a", DType.U8, List.of(2L)));

  @TempDir Path temp;

  private List<String> names() throws IOException {
    try (var files = Files.list(temp)) {
      return files.map(file -> file.getFileName().toString()).toList();
    }
  }

  @ParameterizedTest
  @CsvSource({
    "bnb,nf4_nested_bf16",
    "bnb,odd",
    "comfy,float8_e4m3fn_metadata",
    "quanto,qint8_act_qint8_fp32"
  })
  void writesTheBytesOfTheOfficialWriter(String family, String name) throws IOException {
    Path original = Golden.file(family, name, "model.safetensors");
    Path copy = temp.resolve("copy.safetensors");
    try (SafetensorsFile file = SafetensorsFile.open(original);
        SafetensorsWriter writer =
            SafetensorsWriter.create(
                copy,
                file.tensors().values().stream()
                    .map(SafetensorsWriter.Entry::of)
                    .toList()
                    .reversed(),
                file.metadata())) {
      file.tensors().forEach((tensor, value) -> writer.write(tensor, value.data()));
      writer.commit();
    }
    assertThat(copy).hasSameBinaryContentAs(original);
    assertThat(names()).containsExactly("copy.safetensors");
  }

  @Test
  void writesArraysOfAnyType() {
    float[] floats = new float[300_000]; // more than is copied at once
    for (int i = 0; i < floats.length; i++) {
      floats[i] = i;
    }
    MemorySegment bytes = MemorySegment.ofArray(new byte[] {1, 2, 3});
    List<SafetensorsWriter.Entry> entries =
        List.of(
            new SafetensorsWriter.Entry("f", DType.F32, List.of(300_000L)),
            new SafetensorsWriter.Entry("d", DType.F64, List.of(0L)),
            new SafetensorsWriter.Entry("b", DType.U8, List.of(3L)));
    Path target = temp.resolve("x.safetensors");
    try (SafetensorsWriter writer = SafetensorsWriter.create(target, entries, Map.of())) {
      writer.write("f", MemorySegment.ofArray(floats));
      writer.write("d", MemorySegment.ofArray(new double[0]));
      writer.write("b", bytes);
      writer.commit();
    }
    try (SafetensorsFile file = SafetensorsFile.open(target)) {
      assertThat(file.tensors().get("f").data().mismatch(MemorySegment.ofArray(floats)))
          .isEqualTo(-1);
      assertThat(file.tensors().get("b").data().mismatch(bytes)).isEqualTo(-1);
    }
  }

  @Test
  void leavesNothingBehindWhenItIsNotCommitted() throws IOException {
    Path target = temp.resolve("x.safetensors");
    Files.writeString(target, "before");
    try (SafetensorsWriter writer = SafetensorsWriter.create(target, TWO_BYTES, Map.of())) {
      writer.write("a", 1, MemorySegment.ofArray(new byte[1]));
      assertThatThrownBy(writer::commit)
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("1 of 2");
      assertThatThrownBy(() -> writer.write("a", 1, MemorySegment.ofArray(new byte[2])))
          .isInstanceOf(IndexOutOfBoundsException.class);
    }
    assertThat(target).hasContent("before");
    assertThat(names()).containsExactly("x.safetensors");
  }

  @Test
  void refusesPathsThatCannotBeWritten() throws IOException {
    Path missing = temp.resolve("none").resolve("x.safetensors");
    assertThatThrownBy(() -> SafetensorsWriter.create(missing, TWO_BYTES, Map.of()))
        .isInstanceOf(GatunException.class)
        .hasMessage(missing + ": cannot be written (no such directory)");
    assertThatThrownBy(() -> SafetensorsWriter.create(temp, TWO_BYTES, Map.of()))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("directory");
    Path file = Files.writeString(temp.resolve("file"), "");
    assertThatThrownBy(() -> SafetensorsWriter.create(file.resolve("x"), TWO_BYTES, Map.of()))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("cannot be written");
  }

  @Test
  void refusesTwoTensorsOfOneName() throws IOException {
    List<SafetensorsWriter.Entry> twice = List.of(TWO_BYTES.get(0), TWO_BYTES.get(0));
    assertThatThrownBy(() -> SafetensorsWriter.create(temp.resolve("x"), twice, Map.of()))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("'a'");
    assertThat(names()).isEmpty();
  }
}
