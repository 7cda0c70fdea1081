package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import dev.gatun.layout.LayoutRegistry;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The commands that only look: {@code inspect}, {@code layouts}, {@code doctor}. */
class LookingTest {
  @TempDir Path temp;

  private static JsonNode named(JsonNode list, String name) {
    for (JsonNode entry : list) {
      if (entry.get("name").asText().equals(name)) {
        return entry;
      }
    }
    throw new AssertionError("no " + name + " in " + list);
  }

  @Test
  void inspectShowsLayersTensorsAndSizes() {
    JsonNode report = Cli.run("inspect", Golden.dir("bnb", "nf4_nested_bf16"), "--json").json();
    assertThat(report.get("formats").toString()).isEqualTo("[\"bitsandbytes\"]");
    assertThat(report.get("metadata").get("format").asText()).isEqualTo("pt");
    assertThat(report.get("parameters").asLong())
        .isEqualTo(256 * 512 + 96 * 1536 + 32 * 512 + 8 * 512 + 512 + 512 + 256);
    JsonNode toQ = named(report.get("layers"), "blocks.0.to_q");
    assertThat(toQ.get("layout").asText()).isEqualTo("bitsandbytes.nf4");
    assertThat(toQ.get("encoding").asText()).isEqualTo("NF4");
    assertThat(toQ.get("dtype").asText()).isEqualTo("BF16");
    assertThat(toQ.get("shape").toString()).isEqualTo("[256,512]");
    assertThat(toQ.get("bias").asBoolean()).isTrue();
    assertThat(toQ.get("bitsPerWeight").asDouble())
        .isCloseTo(8.0 * toQ.get("bytes").asDouble() / (256 * 512), within(1e-9))
        .isBetween(4.1, 4.3);
    assertThat(toQ.get("parts").get("codes").asText()).isEqualTo("blocks.0.to_q.weight");
    assertThat(report.get("tensors")).hasSize(22);
    JsonNode bias = named(report.get("tensors"), "blocks.0.to_q.bias");
    assertThat(bias.get("dtype").asText()).isEqualTo("BF16");
    assertThat(bias.get("bytes").asInt()).isEqualTo(512);
    assertThat(bias.get("plain").asBoolean()).isTrue();
  }

  @Test
  void inspectPrintsTheSameAsText() {
    String out = Cli.run("inspect", Golden.dir("comfy", "float8_e4m3fn")).succeeds().out();
    assertThat(out)
        .contains(
            "comfyui, 1 file, 16 tensors",
            "blocks.0.to_q",
            "256 x 512",
            "comfyui.float8_e4m3fn",
            "8.00")
        .contains("Plain tensors", "proj_out.weight", "8 x 512")
        .contains("blocks.0.to_q.comfy_quant: ComfyUI's mark of a quantized layer");
  }

  @Test
  void inspectExplainsKeysThatNobodyKnows() {
    TensorFile file = new TensorFile();
    file.put("a.qzeros", DType.I32, List.of(2L, 2L), new byte[16]);
    file.put("evil\nname", DType.I32, List.of(1L), new byte[4]);
    Path path = file.write(temp.resolve("x.safetensors"));
    JsonNode report = Cli.run("inspect", path, "--json").json();
    assertThat(report.get("unknown").get("a.qzeros").asText()).contains("GPTQ or AWQ");
    assertThat(Cli.run("inspect", path).succeeds().out()).contains("a.qzeros: ", "evil?name");
  }

  @Test
  void layoutsListsTheRegistry() {
    JsonNode report = Cli.run("layouts", "--json").json();
    assertThat(report).hasSameSizeAs(LayoutRegistry.get().entries());
    JsonNode first = report.get(0);
    LayoutRegistry.Entry expected = LayoutRegistry.get().entries().getFirst();
    assertThat(first.get("checkpointFormat").asText()).isEqualTo(expected.checkpointFormat());
    assertThat(first.get("layout").asText()).isEqualTo(expected.layout());
    assertThat(first.get("operation").asText()).isEqualToIgnoringCase(expected.operation().name());
    assertThat(first.get("backend").asText()).isEqualTo(expected.backend());
    assertThat(first.get("entryPoint").asText()).isEqualTo(expected.entryPoint());
    assertThat(Cli.run("layouts").succeeds().out())
        .contains("bitsandbytes.nf4", "reference.linear", "gatun_linear");
  }

  @Test
  void doctorShowsWhatIsThereAndWhatIsNot() {
    JsonNode report = Cli.run("doctor", "--json").json();
    assertThat(report.get("java").get("version").asText()).isEqualTo(Runtime.version().toString());
    assertThat(report.get("java").get("vectorModule").asBoolean()).isTrue();
    assertThat(report.get("threads").asInt()).isEqualTo(Runtime.getRuntime().availableProcessors());
    assertThat(named(report.get("backends"), "reference").get("available").asBoolean()).isTrue();
    JsonNode kernel = named(report.get("kernels"), "linear_i8_nf4__reference");
    assertThat(kernel.get("operation").asText()).isEqualTo("linear");
    assertThat(kernel.get("encoding").asText()).isEqualTo("NF4");
    assertThat(kernel.get("compute").asText()).isEqualTo("i8");
    for (JsonNode backend : report.get("backends")) {
      boolean listed =
          report.get("kernels").findValuesAsText("backend").contains(backend.get("name").asText());
      assertThat(listed).as(backend.toString()).isEqualTo(backend.get("available").asBoolean());
      boolean missing =
          report
              .get("missing")
              .findValuesAsText("what")
              .contains("backend " + backend.get("name").asText());
      assertThat(missing).isNotEqualTo(backend.get("available").asBoolean());
    }
    assertThat(Cli.run("doctor").succeeds().out())
        .contains(Runtime.version().toString(), "linear_i8_nf4__reference", "gpu ");
  }

  @Test
  void doctorShowsTheGpuOrWhyThereIsNone() {
    JsonNode report = Cli.run("doctor", "--json").json();
    JsonNode gpu = report.get("gpu");
    boolean there = gpu.get("available").asBoolean();
    assertThat(gpu.get("devices").isEmpty()).isNotEqualTo(there);
    for (JsonNode device : gpu.get("devices")) {
      assertThat(device.get("freeBytes").asLong())
          .isPositive()
          .isLessThanOrEqualTo(device.get("memoryBytes").asLong());
    }
    assertThat(gpu.get("library").get("looked")).isNotEmpty();
    assertThat(report.get("withoutGpu").asText()).isNotBlank().isNotEqualTo("cuda");
    if (!there) {
      assertThat(gpu.get("detail").asText()).isNotBlank();
      for (String[] command :
          new String[][] {
            {"bench", "linear", "--encoding", "NF4", "--shape", "1x8x64", "--backend", "cuda"},
            {"dequantize", Golden.dir("bnb", "nf4_nested_bf16").toString(), "-o"},
            {"quantize", Golden.dir("bnb", "nf4_nested_bf16").toString(), "--format", "nf4", "-o"},
          }) {
        Object[] whole =
            command[0].equals("bench")
                ? command
                : Stream.concat(
                        Stream.of(command),
                        Stream.of(temp.resolve("out.safetensors").toString(), "--backend", "cuda"))
                    .toArray();
        Cli.run(whole).fails("backend cuda is not available: ");
      }
      assertThat(temp).isEmptyDirectory();
    }
  }

  @Test
  void helpAndVersionAreNoErrors() {
    assertThat(Cli.run("--help").succeeds().out())
        .contains(
            "doctor", "inspect", "layouts", "dequantize", "quantize", "convert", "linear", "bench");
    assertThat(Cli.run("--version").succeeds().out()).startsWith("gatun " + Version.number());
    assertThat(Cli.run("quantize", "--help").succeeds().out()).contains("nf4-nested", "--exclude");
    Cli.run().isMisused("missing command");
    Cli.run("divine").isMisused("divine");
  }
}
