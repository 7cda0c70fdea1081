package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class DequantizeTest {
  @TempDir Path temp;

  @ParameterizedTest
  @CsvSource({
    "bnb,nf4_bf16",
    "bnb,nf4_nested_bf16",
    "bnb,nf4_nested_fp16",
    "bnb,nf4_storage_bf16",
    "bnb,nf4_cpu_fp32",
    "bnb,fp4_fp32",
    "bnb,fp4_nested_bf16",
    "comfy,float8_e4m3fn",
    "comfy,float8_e4m3fn_metadata",
    "comfy,float8_legacy_scaled",
    "comfy,float8_e5m2_fp16",
    "quanto,qint8_bf16",
    "quanto,qint8_fp32",
    "quanto,qfloat8_e4m3fn_bf16",
    "quanto,qfloat8_e4m3fnuz_fp32",
    "quanto,qfloat8_e5m2_fp32"
  })
  void givesTheLibrarysOwnBytes(String family, String name) {
    Path output = temp.resolve("plain.safetensors");
    JsonNode report =
        Cli.run("dequantize", Golden.dir(family, name), "-o", output, "--json").json();
    TensorFile plain = TensorFile.read(output);
    JsonNode expected = Golden.description(family, name).get("sha256");
    assertThat(report.get("dequantized").asInt())
        .isGreaterThanOrEqualTo(expected.size())
        .isPositive();
    assertThat(plain.names())
        .isSubsetOf(TensorFile.original(DType.F32).names())
        .contains("blocks.0.norm.weight", "blocks.0.to_q.bias", "proj_out.weight");
    for (Map.Entry<String, JsonNode> entry : expected.properties()) {
      String layer = entry.getKey().replace(".dq", "");
      Tensor weight = plain.tensors.get("blocks.0." + layer + ".weight");
      assertThat(weight.dtype().name()).isEqualTo(entry.getValue().get("dtype").asText());
      assertThat(sha256(plain.bytes(weight.name())))
          .as(layer)
          .isEqualTo(entry.getValue().get("sha256").asText());
    }
    TensorFile reference = TensorFile.read(Golden.file(family, name, "ref.safetensors"));
    if (reference.names().contains("edge.dq")) {
      assertThat(plain.bytes("blocks.0.edge.weight")).isEqualTo(reference.bytes("edge.dq"));
    }
  }

  private static String sha256(byte[] data) {
    try {
      return HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(data));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }

  @ParameterizedTest
  @CsvSource({"f32,F32", "F16,F16", "bf16,BF16"})
  void writesTheTypeThatIsAskedFor(String asked, String dtype) {
    Path output = temp.resolve("plain.safetensors");
    Cli.run("dequantize", Golden.dir("bnb", "nf4_bf16"), "-o", output, "--dtype", asked).succeeds();
    TensorFile plain = TensorFile.read(output);
    assertThat(plain.tensors.get("blocks.0.to_q.weight").dtype().name()).isEqualTo(dtype);
    TensorFile own = TensorFile.read(Golden.file("bnb", "nf4_bf16", "ref.safetensors"));
    // Every bfloat16 of these magnitudes but the subnormal ones is a number of the other types too.
    float[] values = plain.floats("blocks.0.edge.weight");
    float[] expected = own.floats("edge.dq");
    for (int i = 0; i < values.length; i++) {
      float tolerance = dtype.equals("F16") ? 1e-3f * Math.abs(expected[i]) + 6e-8f : 0;
      assertThat(Math.abs(values[i] - expected[i])).as("%d", i).isLessThanOrEqualTo(tolerance);
    }
  }

  @Test
  void readsAShardIndexAndItsDirectory() {
    Path one = temp.resolve("one.safetensors");
    Path two = temp.resolve("two.safetensors");
    Path index = Golden.file("bnb", "sharded", "model.safetensors.index.json");
    Cli.run("dequantize", index, "-o", one).succeeds();
    Cli.run("dequantize", index.getParent(), "-o", two).succeeds();
    assertThat(one).hasSameBinaryContentAs(two);
  }

  @Test
  void refusesATypeThatIsNoFloat() {
    Cli.run("dequantize", temp, "-o", temp.resolve("x"), "--dtype", "f8")
        .isMisused("--dtype", "F32", "F16", "BF16", "f8");
  }

  @Test
  void refusesWhatCannotBeRead() {
    Path gone = temp.resolve("gone.safetensors");
    Cli.run("dequantize", gone, "-o", temp.resolve("x")).fails(gone, "no such file");
    assertThat(Cli.names(temp)).isEmpty();
  }
}
