package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class LinearLayerTest {
  private static final Path NF4 = Golden.dir("bnb", "nf4_bf16");

  @TempDir Path temp;

  /** The golden inputs in the type that the library multiplied in: the layer's own. */
  private Path x(String layer, DType dtype) {
    return TensorFile.input(layer, dtype).write(temp.resolve("x.safetensors"));
  }

  private Path y() {
    return temp.resolve("y.safetensors");
  }

  private static double relativeError(float[] found, float[] expected) {
    assertThat(found).hasSameSizeAs(expected);
    double noise = 0;
    double signal = 0;
    for (int i = 0; i < found.length; i++) {
      noise += Math.pow((double) found[i] - expected[i], 2);
      signal += Math.pow(expected[i], 2);
    }
    return Math.sqrt(noise / signal);
  }

  @ParameterizedTest
  @CsvSource({
    "bnb,nf4_bf16,to_q,512,BF16",
    "bnb,nf4_bf16,proj,1536,BF16",
    "bnb,fp4_fp32,edge,512,F32",
    "bnb,nf4_nested_fp16,to_q,512,F16",
    "comfy,float8_e4m3fn,to_q,512,BF16",
    "comfy,float8_legacy_scaled,proj,1536,BF16",
    "comfy,float8_e5m2_fp16,to_q,512,F16",
    "quanto,qint8_bf16,to_q,512,BF16",
    "quanto,qint8_fp32,proj,1536,F32",
    "quanto,qfloat8_e4m3fnuz_fp32,to_q,512,F32"
  })
  void multipliesAsTheLibrarysOwnWeightsDo(
      String family, String name, String layer, int k, DType dtype) {
    JsonNode report =
        Cli.run(
                "linear",
                Golden.dir(family, name),
                "blocks.0." + layer,
                "--input",
                x(layer, dtype),
                "-o",
                y(),
                "--json")
            .json();
    TensorFile result = TensorFile.read(y());
    float[] expected =
        TensorFile.read(Golden.file(family, name, "ref.safetensors")).floats(layer + ".y_dq32");
    assertThat(relativeError(result.floats("y"), expected)).isLessThan(1e-6 * Math.sqrt(k));
    assertThat(report.get("m").asInt()).isEqualTo(24);
    assertThat(report.get("k").asInt()).isEqualTo(k);
    assertThat(report.get("n").asInt()).isEqualTo(expected.length / 24);
    assertThat(report.get("compute").asText()).isEqualTo("f32");
    assertThat(report.get("kernel").asText()).startsWith("linear_f32_");
  }

  @ParameterizedTest
  @CsvSource({"f32,1e-6", "bf16,4e-3", "i8,2e-2"})
  void multipliesInTheComputeTypeThatIsAskedFor(String compute, double bound) {
    JsonNode report =
        Cli.run(
                "linear",
                NF4,
                "blocks.0.to_q.weight",
                "--input",
                x("to_q", DType.BF16),
                "-o",
                y(),
                "--compute",
                compute,
                "--backend",
                "reference",
                "--threads",
                1,
                "--json")
            .json();
    float[] expected =
        TensorFile.read(Golden.file("bnb", "nf4_bf16", "ref.safetensors")).floats("to_q.y_dq32");
    assertThat(relativeError(TensorFile.read(y()).floats("y"), expected))
        .isLessThan(bound * Math.sqrt(512));
    assertThat(report.get("compute").asText()).isEqualTo(compute);
    assertThat(report.get("backend").asText()).isEqualTo("reference");
  }

  @Test
  void multipliesByPlainWeightsAddsTheBiasAndKeepsLeadingDimensions() {
    Path weights =
        new TensorFile()
            .putFloats("up.weight", List.of(2L, 3L), 1, 2, 3, 4, 5, 6)
            .putFloats("up.bias", List.of(2L), 0.5f, -1)
            .write(temp.resolve("w.safetensors"));
    Path x =
        new TensorFile()
            .putFloats("x", List.of(1L, 2L, 3L), 1, 0, 0, 1, 1, 1)
            .write(temp.resolve("x.safetensors"));
    Cli.run("linear", weights, "up", "--input", x, "-o", y()).succeeds();
    TensorFile result = TensorFile.read(y());
    assertThat(result.tensors.get("y").shape()).containsExactly(1L, 2L, 2L);
    assertThat(result.floats("y")).containsExactly(1.5f, 3, 6.5f, 14);
  }

  @ParameterizedTest
  @ValueSource(strings = {"F16", "BF16"})
  void takesHalfFloatsAndAVector(DType dtype) {
    Tensor floats = new TensorFile().putFloats("x", List.of(3L), 1, -2, 4).tensors.get("x");
    Path x = new TensorFile().putAs("x", floats, dtype).write(temp.resolve("x.safetensors"));
    Path weights =
        new TensorFile()
            .putFloats("up.weight", List.of(2L, 3L), 1, 2, 3, 4, 5, 6)
            .write(temp.resolve("w.safetensors"));
    Cli.run("linear", weights, "up.weight", "--input", x, "-o", y()).succeeds();
    TensorFile result = TensorFile.read(y());
    assertThat(result.tensors.get("y").shape()).containsExactly(2L);
    assertThat(result.floats("y")).containsExactly(9, 18);
  }

  @Test
  void multipliesNoRowsToNoRows() {
    Path x =
        new TensorFile().putFloats("x", List.of(0L, 512L)).write(temp.resolve("x.safetensors"));
    Cli.run("linear", NF4, "blocks.0.to_q", "--input", x, "-o", y()).succeeds();
    assertThat(TensorFile.read(y()).tensors.get("y").shape()).containsExactly(0L, 256L);
  }

  @Test
  void namesWhatIsWrongWithTheInput() {
    Path wrongK =
        new TensorFile()
            .putFloats("x", List.of(1L, 3L), 1, 2, 3)
            .write(temp.resolve("a.safetensors"));
    run(wrongK, "blocks.0.to_q")
        .fails(wrongK, "'x'", "found shape [1, 3]", "[..., 512]", "blocks.0.to_q");
    Path noX = new TensorFile().putFloats("z", List.of(1L), 1).write(temp.resolve("b.safetensors"));
    run(noX, "blocks.0.to_q").fails(noX, "'x'", "no such tensor", "[z]");
    Path bytes =
        new TensorFile()
            .put("x", DType.U8, List.of(512L), new byte[512])
            .write(temp.resolve("c.safetensors"));
    run(bytes, "blocks.0.to_q").fails(bytes, "'x'", "found type U8", "F32, F16 or BF16");
    Path scalar =
        new TensorFile().putFloats("x", List.of(), 1).write(temp.resolve("d.safetensors"));
    run(scalar, "blocks.0.to_q").fails(scalar, "found shape []");
    run(temp.resolve("gone"), "blocks.0.to_q").fails("gone", "no such file");
    assertThat(Cli.names(temp))
        .containsExactly("a.safetensors", "b.safetensors", "c.safetensors", "d.safetensors");
  }

  private Cli.Result run(Path x, String layer) {
    return Cli.run("linear", NF4, layer, "--input", x, "-o", y());
  }

  @Test
  void namesTheLayersThatMayHaveBeenMeant() {
    run(x("to_q", DType.BF16), "blocks.0.to_k")
        .fails(NF4, "no layer 'blocks.0.to_k'", "'blocks.0.to_q'");
    run(x("to_q", DType.BF16), "blocks.0.norm")
        .fails("blocks.0.norm", "found shape [512]", "expected [N, K]");
    assertThat(y()).doesNotExist();
  }

  @Test
  void listsTheBackendsAndComputeTypesThereAre() {
    Cli.run("linear", NF4, "a", "--input", "x", "-o", "y", "--backend", "gpu")
        .isMisused("'gpu'", "reference");
    Cli.run("linear", NF4, "a", "--input", "x", "-o", "y", "--compute", "f64")
        .isMisused("f64", "F32", "BF16", "I8");
    Cli.run("linear", NF4, "a", "--input", "x", "-o", "y", "--threads", 0)
        .isMisused("found 0", "1 to 1024");
    Cli.run("linear", NF4, "a", "--input", "x").isMisused("--output");
    Cli.run("linear", NF4, "a", "--input", "x", "-o", "y", "--fast").isMisused("--fast");
  }
}
