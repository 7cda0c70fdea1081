package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.data.Percentage.withPercentage;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.Compute;
import dev.gatun.Conv2d;
import dev.gatun.Device;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class QuantizeTest {
  @TempDir Path temp;

  private Path original(DType dtype) {
    return TensorFile.original(dtype).write(temp.resolve("original.safetensors"));
  }

  /**
   * bitsandbytes' CUDA kernels multiply by an approximate reciprocal, up to one unit in the last
   * place off: one code of the FP4 file, whose value lies exactly on a threshold, falls on the
   * other side.
   *
   * @param differences bytes that are not the library's
   */
  @ParameterizedTest
  @CsvSource({
    "bnb,nf4_bf16,nf4,BF16,0",
    "bnb,nf4_nested_bf16,nf4-nested,BF16,0",
    "bnb,nf4_nested_fp16,nf4-nested,F16,0",
    "bnb,fp4_fp32,fp4,F32,0",
    "bnb,fp4_nested_bf16,fp4-nested,BF16,23",
    "comfy,float8_e4m3fn_metadata,float8_e4m3fn,BF16,0",
    "comfy,convrot_w4a4,comfy-convrot_w4a4,BF16,0",
    "comfy,asym_w4a8_int8,comfy-asym_w4a8_int8,BF16,0",
    "comfy,mxfp8,comfy-mxfp8,BF16,0",
    "quanto,qint8_bf16,qint8,BF16,0",
    "quanto,qint8_fp32,qint8,F32,0",
    "quanto,qfloat8_e4m3fn_bf16,qfloat8_e4m3fn,BF16,0",
    "quanto,qfloat8_e4m3fnuz_fp32,qfloat8_e4m3fnuz,F32,0",
    "quanto,qfloat8_e5m2_fp32,qfloat8_e5m2,F32,0"
  })
  void writesTheFileThatTheLibraryWrites(
      String family, String name, String format, DType dtype, int differences) throws Exception {
    Path output = temp.resolve("out/model.safetensors");
    Files.createDirectory(output.getParent());
    TensorFile model = TensorFile.original(dtype);
    TensorFile expected = TensorFile.golden(family, name);
    if (expected.names().stream().noneMatch(tensor -> tensor.startsWith("blocks.0.edge"))) {
      model.tensors.remove("blocks.0.edge.weight"); // not all families have it
    }
    model.metadata.keySet().retainAll(expected.metadata.keySet());
    Path original = model.write(temp.resolve("original.safetensors"));
    Cli.run("quantize", original, "-o", output, "--format", format, "--exclude", "proj_out")
        .succeeds();
    TensorFile found = TensorFile.read(output);
    assertThat(found.names()).isEqualTo(expected.names());
    int changed = 0;
    for (String tensor : expected.names()) {
      assertThat(found.tensors.get(tensor).dtype())
          .as(tensor)
          .isEqualTo(expected.tensors.get(tensor).dtype());
      assertThat(found.tensors.get(tensor).shape())
          .as(tensor)
          .isEqualTo(expected.tensors.get(tensor).shape());
      changed += differences(found.bytes(tensor), expected.bytes(tensor));
    }
    assertThat(changed).isEqualTo(differences);
    // The library lists layers as the model has them, which a checkpoint does not tell.
    assertThat(found.metadata.keySet()).isEqualTo(expected.metadata.keySet());
    for (String key : expected.metadata.keySet()) {
      assertThat(tree(found.metadata.get(key))).isEqualTo(tree(expected.metadata.get(key)));
    }
    Path map = Golden.file(family, name, "quantization_map.json");
    if (Files.exists(map)) {
      Path own = output.resolveSibling("quantization_map.json");
      assertThat(tree(Files.readString(own))).isEqualTo(tree(Files.readString(map)));
    }
    if (differences == 0 && found.metadata.equals(expected.metadata)) {
      assertThat(output).hasSameBinaryContentAs(Golden.file(family, name, "model.safetensors"));
    }
  }

  /** The scales of a calibration go into the layers that it saw, and static products use them. */
  @Test
  void writesTheScalesOfACalibration() throws Exception {
    Path original = TensorFile.original(DType.F32).write(temp.resolve("original.safetensors"));
    Files.writeString(
        temp.resolve("activation_scales.json"),
        """
        {"blocks.0.to_q": {"activations": "F8_E4M3", "input_scale": 0.25, "output_scale": 2},
         "elsewhere": {"activations": "I8", "input_scale": 1, "output_scale": 1}}""");
    Path output = temp.resolve("fp8.safetensors");
    Cli.run("quantize", original, "-o", output, "--format", "float8_e4m3fn", "--calibration", temp)
        .succeeds();
    assertThat(TensorFile.read(output).floats("blocks.0.to_q.input_scale")).containsExactly(0.25f);
    Path x =
        new TensorFile().putFloats("x", List.of(1L, 512L), new float[512]).write(temp.resolve("x"));
    Cli.run(
            "linear",
            output,
            "blocks.0.to_q",
            "--input",
            x,
            "-o",
            temp.resolve("y"),
            "--compute",
            "f8")
        .succeeds();
    Cli.run(
            "linear",
            output,
            "blocks.0.to_q",
            "--input",
            x,
            "-o",
            temp.resolve("y"),
            "--compute",
            "i8_static")
        .fails("blocks.0.to_q: found activations of F8_E4M3, expected I8");
    Cli.run("quantize", original, "-o", output, "--format", "nf4", "--calibration", temp)
        .fails("--calibration: found format nf4, expected one of comfy-int8");
    Cli.run("quantize", original, "-o", output, "--format", "qint8", "--calibration", output)
        .fails("activation_scales.json");
  }

  private static Object tree(String text) throws IOException {
    return text.startsWith("{") ? new ObjectMapper().readTree(text) : text;
  }

  private static int differences(byte[] found, byte[] expected) {
    assertThat(found).hasSameSizeAs(expected);
    int count = 0;
    for (int i = 0; i < found.length; i++) {
      count += found[i] == expected[i] ? 0 : 1;
    }
    return count;
  }

  @Test
  void reportsBytesAndTheErrorOfEachLayer() {
    Path output = temp.resolve("q.safetensors");
    JsonNode report =
        Cli.run(
                "quantize",
                original(DType.F32),
                "-o",
                output,
                "--format",
                "qint8",
                "--include",
                "*.to_?",
                "--include",
                "blocks.0.proj",
                "--exclude",
                "*.to_k",
                "--json")
            .json();
    assertThat(report.get("layers").findValuesAsText("name"))
        .containsExactlyInAnyOrder("blocks.0.to_q", "blocks.0.proj");
    assertThat(report.get("copied").asInt()).isEqualTo(5);
    JsonNode toQ = layer(report, "blocks.0.to_q");
    assertThat(toQ.get("n").asInt()).isEqualTo(256);
    assertThat(toQ.get("k").asInt()).isEqualTo(512);
    assertThat(toQ.get("bytesBefore").asInt()).isEqualTo(256 * 512 * 4);
    assertThat(toQ.get("bytesAfter").asInt()).isEqualTo(256 * 512 + 256 * 4 + 2 * 4);
    assertThat(toQ.get("relativeError").asDouble())
        .isCloseTo(errorOf(output, "blocks.0.to_q.weight"), withPercentage(1e-4));
    assertThat(toQ.get("snrDb").asDouble()).isBetween(30.0, 60.0);
    assertThat(toQ.get("how").asText()).isEqualTo("quantized");
    assertThat(report.get("bytesAfter").asLong())
        .isLessThan(report.get("bytesBefore").asLong() / 2);
  }

  /** A convolution's weight is quantized as the matrix of as many rows, and keeps its shape. */
  @ParameterizedTest
  @CsvSource({"qint8, qint8_bf16, true", "qint4, qint4_bf16, false"})
  void convolutionsAreQuantizedWhenTheyAreAskedFor(String format, String golden, boolean shaped)
      throws Exception {
    TensorFile model = TensorFile.original(DType.BF16);
    model.put(
        "blocks.0.proj.weight",
        DType.BF16,
        List.of(96L, 384L, 2L, 2L),
        model.bytes("blocks.0.proj.weight"));
    Path original = model.write(temp.resolve("original.safetensors"));
    Path output = temp.resolve("out.safetensors");
    Cli.run("quantize", original, "-o", output, "--format", format).succeeds();
    assertThat(TensorFile.read(output).names()).contains("blocks.0.proj.weight");
    JsonNode report =
        Cli.run("quantize", original, "-o", output, "--format", format, "--convolutions", "--json")
            .json();
    assertThat(layer(report, "blocks.0.proj").get("k").asInt()).isEqualTo(1536);
    TensorFile expected = TensorFile.golden("quanto", golden);
    TensorFile found = TensorFile.read(output);
    for (String name : expected.names()) {
      if (name.startsWith("blocks.0.proj")) {
        assertThat(found.bytes(name)).as(name).isEqualTo(expected.bytes(name));
      }
    }
    if (shaped) {
      assertThat(found.tensors.get("blocks.0.proj.weight._data").shape())
          .containsExactly(96L, 384L, 2L, 2L);
      assertThat(found.tensors.get("blocks.0.proj.weight._scale").shape())
          .containsExactly(96L, 1L, 1L, 1L);
      try (Checkpoint opened = Checkpoint.open(output);
          Device device = Device.best();
          Conv2d conv =
              opened.conv2d("blocks.0.proj", Conv2d.Geometry.of(1, 0), Compute.F32, device)) {
        assertThat(conv.outChannels()).isEqualTo(96);
      }
    }
    Cli.run("quantize", original, "-o", output, "--format", "nf4", "--convolutions")
        .fails("found no convolution to quantize to nf4");
  }

  private static JsonNode layer(JsonNode report, String name) {
    for (JsonNode layer : report.get("layers")) {
      if (layer.get("name").asText().equals(name)) {
        return layer;
      }
    }
    throw new AssertionError("no layer " + name + " in " + report);
  }

  /** The relative error by what dequantize gives. */
  private double errorOf(Path quantized, String weight) {
    Path plain = temp.resolve("plain.safetensors");
    Cli.run("dequantize", quantized, "-o", plain).succeeds();
    float[] after = TensorFile.read(plain).floats(weight);
    float[] before = TensorFile.original(DType.F32).floats(weight);
    double noise = 0;
    double signal = 0;
    for (int i = 0; i < before.length; i++) {
      double difference = after[i] - (double) before[i];
      noise += difference * difference;
      signal += (double) before[i] * before[i];
    }
    return Math.sqrt(noise / signal);
  }

  @Test
  void listsTheFormatsThatCanBeWritten() {
    Cli.run("quantize", "a", "-o", "b", "--format", "int3")
        .isMisused("'int3'", "nf4", "qint8", "float8_e4m3fn");
    Cli.run("quantize", "a", "-o", "b").isMisused("--format");
  }

  @Test
  void refusesWhatIsQuantizedAlready() {
    Path output = temp.resolve("q");
    Cli.run("quantize", Golden.dir("bnb", "nf4_bf16"), "-o", output, "--format", "nf4")
        .fails("blocks.0.edge", "found a quantized weight", "expected plain floats");
    assertThat(Cli.names(temp)).isEmpty();
  }

  @Test
  void refusesFiltersThatLeaveNothing() {
    Cli.run(
            "quantize",
            original(DType.F32),
            "-o",
            temp.resolve("q"),
            "--format",
            "nf4",
            "--include",
            "zz*")
        .fails("found no weight to quantize to nf4");
    assertThat(Cli.names(temp)).containsExactly("original.safetensors");
  }

  @ParameterizedTest
  @CsvSource({"NaN,nf4", "Infinity,qint8", "-Infinity,float8_e4m3fn", "NaN,qfloat8_e5m2"})
  void refusesWeightsThatAreNoNumbers(float bad, String format) {
    Path file =
        new TensorFile()
            .putFloats("a.weight", List.of(2L, 2L), 1, 2, bad, 3)
            .write(temp.resolve("w.safetensors"));
    Cli.run("quantize", file, "-o", temp.resolve("q"), "--format", format)
        .fails(file, "'a.weight'", "found NaN or infinity", "finite numbers");
    assertThat(Cli.names(temp)).containsExactly("w.safetensors");
  }
}
