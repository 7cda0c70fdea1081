package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.kernel.ReferenceBackend;
import dev.gatun.quantize.LayerReport;
import dev.gatun.quantize.NameFilter;
import dev.gatun.quantize.ProgressListener;
import dev.gatun.quantize.Quantizer;
import dev.gatun.quantize.Report;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Files that we write: ggml's own bytes, opened again. */
class GgufWriterTest {
  @TempDir private Path temp;

  private static List<SafetensorsWriter.Entry> entries(TensorFile file) {
    return file.tensors().values().stream().map(SafetensorsWriter.Entry::of).toList();
  }

  @Test
  void writesTheLibrarysOwnBytes() throws Exception {
    Path golden = Golden.file("gguf", "all", "model.gguf");
    Path copy = temp.resolve("copy.gguf");
    try (GgufFile file = GgufFile.open(golden);
        GgufWriter writer = GgufWriter.create(copy, entries(file), file.values())) {
      file.tensors().values().forEach(tensor -> writer.write(tensor.name(), tensor.data()));
      writer.commit();
    }
    assertThat(Files.mismatch(copy, golden)).isEqualTo(-1);
  }

  @Test
  void refusesWhatTheFormatCannotHold() {
    List<SafetensorsWriter.Entry> bad =
        List.of(
            new SafetensorsWriter.Entry("n".repeat(64), DType.F32, List.of(1L)),
            new SafetensorsWriter.Entry("u8", DType.U8, List.of(1L)),
            new SafetensorsWriter.Entry("five", DType.F32, List.of(1L, 1L, 1L, 1L, 1L)),
            new SafetensorsWriter.Entry("part of a block", DType.Q4_0, List.of(2L, 33L)));
    for (SafetensorsWriter.Entry entry : bad) {
      Path target = temp.resolve("bad.gguf");
      assertThatThrownBy(() -> GgufWriter.create(target, List.of(entry), Map.of()).close())
          .isInstanceOf(GatunException.class)
          .hasMessageContaining(entry.name());
      assertThat(temp).isEmptyDirectory();
    }
  }

  /** The golden file's F32 weights as a checkpoint of plain floats, and tensors that must stay. */
  private Path plain() {
    Path path = temp.resolve("plain.gguf");
    try (GgufFile golden = GgufFile.open(Golden.file("gguf", "all", "model.gguf"))) {
      List<Tensor> tensors = new ArrayList<>();
      for (String rows : List.of("a", "b", "e")) {
        Tensor t = golden.tensors().get(rows + ".f32");
        tensors.add(new Tensor(rows + ".weight", t.dtype(), t.shape(), t.data()));
      }
      MemorySegment ones = MemorySegment.ofArray(new byte[33 * 4 * Float.BYTES]);
      tensors.add(0, new Tensor("odd.weight", DType.F32, List.of(4L, 33L), ones));
      tensors.add(2, new Tensor("norm.weight", DType.F32, List.of(132L), ones));
      tensors.add(new Tensor("conv.weight", DType.F32, List.of(1L, 4L, 1L, 33L), ones));
      List<SafetensorsWriter.Entry> entries =
          tensors.stream().map(SafetensorsWriter.Entry::of).toList();
      try (GgufWriter writer = GgufWriter.create(path, entries, golden.values())) {
        tensors.forEach(tensor -> writer.write(tensor.name(), tensor.data()));
        writer.commit();
      }
    }
    return path;
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "mxfp4", "nvfp4", "q4_k", "q6_k"
      })
  void quantizesToFilesThatOpenWithTheLibrarysCodes(String type) throws Exception {
    Path target = temp.resolve("out.gguf");
    String format = "gguf-" + type;
    try (Checkpoint source = Checkpoint.open(plain())) {
      quantize(source, target, format);
      try (Checkpoint written = Checkpoint.open(target);
          GgufFile golden = GgufFile.open(Golden.file("gguf", "all", "model.gguf"))) {
        assertThat(written.layers()).containsOnlyKeys("a", "b", "e");
        assertThat(written.tensors().keySet()).containsExactlyElementsOf(source.tensors().keySet());
        assertThat(written.plain()).containsOnlyKeys("odd.weight", "norm.weight", "conv.weight");
        String dtype = type.toUpperCase(Locale.ROOT);
        String spelled = type.endsWith("_k") ? type.replace("_k", "_K") : type;
        for (String layer : written.layers().keySet()) {
          Tensor codes = written.tensor(layer + ".weight");
          assertThat(codes.dtype().name()).isEqualTo(dtype);
          if (!type.endsWith("_k")) { // those are searched, with bytes of their own
            MemorySegment theirs = golden.tensors().get(layer + "." + spelled).data();
            assertThat(codes.data().mismatch(theirs)).isEqualTo(-1);
          }
        }
        assertThat(written.metadata())
            .containsAllEntriesOf(without(source.metadata()))
            .containsEntry("general.quantization_version", "2")
            .containsKey("general.file_type");
      }
    }
    Path again = temp.resolve("again.gguf");
    try (Checkpoint written = Checkpoint.open(target)) {
      Report report =
          Quantizer.convert(written, again, format, new ReferenceBackend(), ProgressListener.NONE);
      assertThat(report.layers())
          .extracting(LayerReport::how)
          .containsOnly(LayerReport.How.LOSSLESS);
    }
    assertThat(Files.mismatch(target, again)).isEqualTo(-1);
  }

  private static Map<String, String> without(Map<String, String> metadata) {
    Map<String, String> rest = new LinkedHashMap<>(metadata);
    rest.remove("general.file_type");
    rest.remove("general.quantization_version");
    return rest;
  }

  @Test
  void quantizesASafetensorsCheckpoint() {
    Path floats = temp.resolve("w.safetensors");
    try (TensorFile orig = TensorFile.open(Golden.file("orig", "orig", "weights.safetensors"))) {
      List<Tensor> tensors =
          orig.tensors().values().stream()
              .map(t -> new Tensor(t.name() + ".weight", t.dtype(), t.shape(), t.data()))
              .toList();
      List<SafetensorsWriter.Entry> entries =
          tensors.stream().map(SafetensorsWriter.Entry::of).toList();
      Map<String, String> metadata = Map.of("general.architecture", "test", "format", "pt");
      try (SafetensorsWriter writer = SafetensorsWriter.create(floats, entries, metadata)) {
        tensors.forEach(tensor -> writer.write(tensor.name(), tensor.data()));
        writer.commit();
      }
    }
    Path target = temp.resolve("from.gguf");
    try (Checkpoint source = Checkpoint.open(floats)) {
      Report report = quantize(source, target, "gguf-q8_0");
      assertThat(report.layers()).hasSize(4);
      for (LayerReport layer : report.layers()) {
        assertThat(layer.relativeError()).as(layer.layer()).isLessThan(0.02);
      }
      try (Checkpoint written = Checkpoint.open(target)) {
        assertThat(written.metadata())
            .containsOnlyKeys(
                "general.architecture", "general.quantization_version", "general.file_type");
        assertThat(written.tensors().keySet()).containsExactlyElementsOf(source.tensors().keySet());
      }
    }
  }

  private static Report quantize(Checkpoint source, Path target, String format) {
    return Quantizer.quantize(
        source, target, format, NameFilter.DEFAULT, new ReferenceBackend(), ProgressListener.NONE);
  }
}
