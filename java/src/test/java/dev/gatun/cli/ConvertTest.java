package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import java.nio.file.Path;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ConvertTest {
  @TempDir Path temp;

  @ParameterizedTest
  @CsvSource({
    "bnb,nf4_bf16,qint8",
    "comfy,float8_e4m3fn_metadata,nf4",
    "quanto,qint8_bf16,float8_e4m3fn"
  })
  void givesWhatQuantizingTheDequantizedWeightsGives(String family, String name, String format) {
    Path source = Golden.dir(family, name);
    Path plain = temp.resolve("plain.safetensors");
    Cli.run("dequantize", source, "-o", plain).succeeds();
    Path expected = temp.resolve("expected.safetensors");
    Cli.run("quantize", plain, "-o", expected, "--format", format, "--exclude", "proj_out")
        .succeeds();
    Path found = temp.resolve("found.safetensors");
    JsonNode report = Cli.run("convert", source, "-o", found, "--format", format, "--json").json();
    assertThat(Set.copyOf(report.get("layers").findValuesAsText("how")))
        .containsExactly("requantized");
    assertThat(found).hasSameBinaryContentAs(expected);
  }

  @Test
  void quantizesACheckpointOfFloats() {
    Path original = TensorFile.original(DType.F32).write(temp.resolve("original.safetensors"));
    Path expected = temp.resolve("expected.safetensors");
    Cli.run("quantize", original, "-o", expected, "--format", "nf4").succeeds();
    Path found = temp.resolve("found.safetensors");
    JsonNode report = Cli.run("convert", original, "-o", found, "--format", "nf4", "--json").json();
    assertThat(Set.copyOf(report.get("layers").findValuesAsText("how")))
        .containsExactly("quantized");
    assertThat(found).hasSameBinaryContentAs(expected);
  }

  @Test
  void listsTheFormatsThatCanBeWritten() {
    Cli.run("convert", "a", "-o", "b", "--format", "zip").isMisused("'zip'", "nf4", "qint8");
  }
}
