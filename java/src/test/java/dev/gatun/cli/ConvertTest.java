package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.Linear;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.ReferenceBackend;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
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

  @ParameterizedTest
  @CsvSource({
    "quanto,qint8_bf16,comfy-int8-row,qint8",
    "comfy,float8_e4m3fn_metadata,qfloat8_e4m3fn,float8_e4m3fn",
  })
  void keepsCodesAndValuesWhereTheFormatHoldsThem(
      String family, String name, String format, String back) {
    Path source = Golden.dir(family, name);
    Path there = temp.resolve("there.safetensors");
    assertThat(hows(Cli.run("convert", source, "-o", there, "--format", format, "--json").json()))
        .containsExactly("lossless");
    Path again = Path.of(temp.toString(), "back", "again.safetensors");
    assertThat(again.getParent().toFile().mkdir()).isTrue();
    assertThat(hows(Cli.run("convert", there, "-o", again, "--format", back, "--json").json()))
        .containsExactly("lossless");
    try (Checkpoint before = Checkpoint.open(source);
        Checkpoint between = Checkpoint.open(there);
        Checkpoint after = Checkpoint.open(again)) {
      assertThat(before.layers()).isNotEmpty();
      for (String layer : before.layers().keySet()) {
        Matrix expected = before.quantized(layer).matrix();
        for (Checkpoint other : List.of(between, after)) {
          Matrix found = other.quantized(layer).matrix();
          assertThat(found.codes().mismatch(expected.codes())).as(layer).isEqualTo(-1);
          assertThat(values(found).mismatch(values(expected))).as(layer).isEqualTo(-1);
        }
        assertThat(after.quantized(layer).layout()).isEqualTo(before.quantized(layer).layout());
      }
    }
  }

  /**
   * Whatever order, width or scale type two layouts have. Once rounded to the type that the weight
   * had, its numbers are the same bits.
   */
  @ParameterizedTest
  @CsvSource({
    "bnb,nf4_nested_bf16,nf4",
    "bnb,nf4_nested_bf16,nf4-nested",
    "bnb,nf4_storage_bf16,nf4",
    "bnb,fp4_nested_bf16,fp4",
    "bnb,int8,llm-int8",
    "comfy,float8_legacy_scaled,float8_e4m3fn",
    "comfy,float8_e4m3fn,comfy-scaled_fp8",
    "comfy,mxfp8,comfy-mxfp8",
    "comfy,nvfp4,comfy-nvfp4",
    "comfy,convrot_w4a4,comfy-convrot_w4a4",
    "comfy,asym_w4a8_int8,comfy-asym_w4a8_int8",
    "comfy,awq_w4a16,comfy-awq_w4a16",
    "quanto,qint4_fp32,qint4",
    "gptq,b4_g128_sym,gguf-q4_0",
    "compressed_tensors,w4a16_sym_g128,gguf-q4_0",
    "compressed_tensors,fp8_channel,qfloat8_e4m3fn",
    "torchao,int8wo_bf16,comfy-int8-row",
    "torchao,int8wo_group64_bf16,torchao-int8wo-g64",
    "torchao,int4wo_tile_g128,torchao-int4wo",
    "torchao,nvfp4_one_level,gguf-nvfp4",
    "torchao,mxfp4,gguf-mxfp4"
  })
  void laysCodesOutAnew(String family, String name, String format) {
    assumeTrue(Golden.cases(family).contains(name), "not among the test resources");
    Path source = Golden.dir(family, name);
    Path there = temp.resolve(format.startsWith("gguf") ? "there.gguf" : "there.safetensors");
    assertThat(hows(Cli.run("convert", source, "-o", there, "--format", format, "--json").json()))
        .containsExactly("lossless");
    try (Checkpoint before = Checkpoint.open(source);
        Checkpoint after = Checkpoint.open(there)) {
      assertThat(after.layers().keySet())
          .containsExactlyInAnyOrderElementsOf(before.layers().keySet());
      for (String layer : before.layers().keySet()) {
        Matrix m = before.quantized(layer).matrix();
        Matrix found = after.quantized(layer).matrix().withResult(m.result());
        assertThat(values(found).mismatch(values(m))).as(layer).isEqualTo(-1);
      }
    }
  }

  /** The legacy form has it under another name. */
  @Test
  void keepsTheScaleOfStaticActivations() {
    Path source = Golden.dir("comfy", "float8_legacy_scaled");
    Path there = temp.resolve("there.safetensors");
    Path again = temp.resolve("again.safetensors");
    Cli.run("convert", source, "-o", there, "--format", "float8_e4m3fn").succeeds();
    Cli.run("convert", there, "-o", again, "--format", "comfy-scaled_fp8").succeeds();
    TensorFile before = TensorFile.golden("comfy", "float8_legacy_scaled");
    assertThat(TensorFile.read(there).floats("blocks.0.to_q.input_scale"))
        .isEqualTo(before.floats("blocks.0.to_q.scale_input"));
    TensorFile after = TensorFile.read(again);
    assertThat(after.names()).isEqualTo(before.names());
    for (String name : before.names()) {
      assertThat(after.bytes(name)).as(name).isEqualTo(before.bytes(name));
    }
  }

  /** ComfyUI multiplies scales and codes in BF16, ggml in floats: of the same codes and scales. */
  @Test
  void saysWhereOnlyTheRoundingDiffers() {
    Path source = Golden.dir("comfy", "nvfp4");
    Path there = temp.resolve("there.gguf");
    JsonNode report =
        Cli.run("convert", source, "-o", there, "--format", "gguf-nvfp4", "--json").json();
    assertThat(hows(report)).containsExactly("relaid");
    for (JsonNode layer : report.get("layers")) {
      assertThat(layer.get("relativeError").asDouble()).isLessThan(1.0 / 256);
    }
    try (Checkpoint before = Checkpoint.open(source);
        Checkpoint after = Checkpoint.open(there)) {
      for (String layer : before.layers().keySet()) {
        assertThat(after.quantized(layer).matrix().globalScale())
            .isEqualTo(before.quantized(layer).matrix().globalScale());
      }
    }
  }

  private static Set<String> hows(JsonNode report) {
    return Set.copyOf(report.get("layers").findValuesAsText("how"));
  }

  private static MemorySegment values(Matrix m) {
    float[] values = new float[Math.toIntExact(m.n() * m.k())];
    MemorySegment out = MemorySegment.ofArray(values);
    new ReferenceBackend().dequantize(m, 0, m.n(), out, Encoding.F32);
    for (int i = 0; i < values.length; i++) {
      values[i] += 0f; // the two zeros are one: ggml's 4-bit floats have no negative one
    }
    return out;
  }

  /** Row scales are not one scale, and a float type cannot hold every product of a finer scale. */
  @ParameterizedTest
  @CsvSource({
    "quanto,qint8_bf16,comfy-int8",
    "quanto,qfloat8_e4m3fn_bf16,float8_e4m3fn",
    "comfy,int8_rowwise,qint8"
  })
  void quantizesAgainWhereItDoesNot(String family, String name, String format) {
    Path found = temp.resolve("found.safetensors");
    Path source = Golden.dir(family, name);
    assertThat(hows(Cli.run("convert", source, "-o", found, "--format", format, "--json").json()))
        .containsExactly("requantized");
  }

  /**
   * x is multiplied by 64 numbers before the weight of ComfyUI's nvfp4 is: y = (x · s) · Wᵀ.
   * Formats that have such numbers keep them, weights of others take them in.
   */
  @ParameterizedTest
  @CsvSource({"comfy-nvfp4,true", "comfy-int8-row,true", "qint8,false", "gguf-q8_0,false"})
  void whatTheInputIsMultipliedByGoesAlong(String format, boolean kept) {
    Path source = multiplied();
    Path there = temp.resolve(format.startsWith("gguf") ? "there.gguf" : "there.safetensors");
    Cli.Result result = Cli.run("convert", source, "-o", there, "--format", format, "--json");
    result.succeeds();
    assertThat(result.err().contains("multiplied into the weight")).isNotEqualTo(kept);
    assertThat(difference(product(source), product(there))).isLessThan(0.02);
    try (Checkpoint checkpoint = Checkpoint.open(there)) {
      assertThat(checkpoint.quantized("a").inputMultiplier().isPresent()).isEqualTo(kept);
    }
  }

  /** Of plain floats too: dequantized checkpoints keep the numbers under their name. */
  @Test
  void dequantizedLayersAreMultipliedTheSame() {
    Path source = multiplied();
    Path plain = temp.resolve("plain.safetensors");
    Cli.Result result = Cli.run("dequantize", source, "-o", plain);
    result.succeeds();
    assertThat(result.err()).contains("'a.pre_quant_scale'");
    assertThat(difference(product(source), product(plain))).isLessThan(1e-6);
    for (String format : List.of("qint8", "comfy-int8-row")) {
      Path quantized = temp.resolve(format + ".safetensors");
      Cli.run("quantize", plain, "-o", quantized, "--format", format).succeeds();
      assertThat(difference(product(source), product(quantized))).isLessThan(0.02);
      assertThat(TensorFile.read(quantized).names().contains("a.pre_quant_scale"))
          .isEqualTo(format.startsWith("comfy"));
    }
  }

  /** A layer of 32 x 64 in nvfp4 with {@code pre_quant_scale}. */
  private Path multiplied() {
    Random random = new Random(3);
    TensorFile file = new TensorFile();
    byte[] codes = new byte[32 * 64 / 2];
    random.nextBytes(codes);
    byte[] scales = new byte[128 * 4];
    Arrays.fill(scales, (byte) 0x38);
    float[] factors = new float[64];
    for (int i = 0; i < factors.length; i++) {
      factors[i] = 0.5f + random.nextFloat();
    }
    byte[] mark = "{\"format\": \"nvfp4\"}".getBytes(StandardCharsets.UTF_8);
    file.put("a.weight", DType.U8, List.of(32L, 32L), codes);
    file.put("a.weight_scale", DType.F8_E4M3, List.of(128L, 4L), scales);
    file.putFloats("a.weight_scale_2", List.of(), 1);
    file.putFloats("a.pre_quant_scale", List.of(64L), factors);
    file.put("a.comfy_quant", DType.U8, List.of((long) mark.length), mark);
    return file.write(temp.resolve("multiplied.safetensors"));
  }

  /** The layer's product with one row of x. */
  private static float[] product(Path checkpoint) {
    float[] x = new float[64];
    for (int i = 0; i < x.length; i++) {
      x[i] = (i % 7 - 3) / 4f;
    }
    try (Checkpoint opened = Checkpoint.open(checkpoint);
        Device device = Device.of("reference", 1);
        Linear linear = opened.linear("a", device)) {
      float[] y = new float[32];
      linear.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(y));
      return y;
    }
  }

  private static double difference(float[] expected, float[] found) {
    double error = 0;
    double norm = 0;
    for (int i = 0; i < expected.length; i++) {
      error += Math.pow(found[i] - expected[i], 2);
      norm += Math.pow(expected[i], 2);
    }
    return Math.sqrt(error / norm);
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
