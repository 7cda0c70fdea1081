package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.checkpoint.Golden;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIf;
import org.junit.jupiter.api.io.TempDir;

/** The commands on a GPU give what they give elsewhere. */
@EnabledIf(value = "dev.gatun.kernel.Cuda#hasGpu", disabledReason = "no GPU")
class CudaCommandsTest {
  @TempDir Path temp;

  private Path run(String backend, Object... words) {
    Path out = temp.resolve(backend + ".safetensors");
    Object[] all = new Object[words.length + 4];
    System.arraycopy(words, 0, all, 0, words.length);
    all[words.length] = "-o";
    all[words.length + 1] = out;
    all[words.length + 2] = "--backend";
    all[words.length + 3] = backend;
    Cli.run(all).succeeds();
    return out;
  }

  @Test
  void dequantizeWritesTheSameBytes() throws Exception {
    Path checkpoint = Golden.dir("bnb", "nf4_nested_bf16");
    Path expected = run("reference", "dequantize", checkpoint);
    assertThat(run("cuda", "dequantize", checkpoint)).hasSameBinaryContentAs(expected);
  }

  @Test
  void quantizeWritesTheSameBytes() throws Exception {
    Path plain = temp.resolve("plain.safetensors");
    Files.copy(run("native", "dequantize", Golden.dir("bnb", "nf4_nested_bf16")), plain);
    for (String format : new String[] {"nf4", "comfy-int8", "float8_e4m3fn"}) {
      Path expected = run("reference", "quantize", plain, "--format", format);
      assertThat(run("cuda", "quantize", plain, "--format", format))
          .hasSameBinaryContentAs(expected);
    }
  }

  @Test
  void benchTimesTheDevice() {
    JsonNode report =
        Cli.run(
                "bench",
                "linear",
                "--encoding",
                "NF4",
                "--shape",
                "1x512x256",
                "--compute",
                "BF16",
                "--seconds",
                "0.1",
                "--backend",
                "cuda",
                "--json")
            .json();
    assertThat(report.get("backend").asText()).isEqualTo("cuda");
    assertThat(report.get("kernel").asText()).startsWith("linear_bf16_nf4__sm");
    assertThat(report.get("ms").asDouble()).isPositive();
  }
}
