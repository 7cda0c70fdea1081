package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Linear;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** {@code gatun quantize --auto-mixed}. */
class QuantizeMixedTest {
  @TempDir Path temp;

  /** Five layers of 64 × 256 normal numbers, with more and more outliers. */
  private Path model() {
    TensorFile model = new TensorFile();
    Random random = new Random(17);
    for (int layer = 0; layer < 5; layer++) {
      float[] w = new float[64 * 256];
      for (int i = 0; i < w.length; i++) {
        w[i] = (float) random.nextGaussian() * (random.nextInt(100) < 2 * layer ? 10 : 1);
      }
      model.putFloats("l" + layer + ".weight", List.of(64L, 256L), w);
    }
    return model.write(temp.resolve("model.safetensors"));
  }

  private JsonNode mixed(Object... more) {
    Object[] args = {"quantize", model(), "-o", temp.resolve("out.safetensors"), "--auto-mixed"};
    Object[] all = new Object[args.length + more.length + 1];
    System.arraycopy(args, 0, all, 0, args.length);
    System.arraycopy(more, 0, all, args.length, more.length);
    all[all.length - 1] = "--json";
    return Cli.run(all).json();
  }

  @Test
  void everyLayerKeepsTheLeastSignalToNoise() {
    JsonNode report = mixed("--min-snr", 20);
    assertThat(report.path("layers").size()).isEqualTo(5);
    report
        .path("layers")
        .forEach(layer -> assertThat(layer.path("snrDb").asDouble(200)).isGreaterThan(20));
    List<String> formats = report.path("choices").findValuesAsText("format");
    assertThat(formats).contains("qint4", "qint8");
    report
        .path("choices")
        .forEach(
            choice -> {
              assertThat(choice.path("why").asText()).isNotBlank();
              double bits = choice.path("bits").asDouble();
              choice
                  .path("candidates")
                  .forEach(
                      other -> {
                        if (other.path("bits").asDouble() < bits) { // it would have been taken
                          assertThat(other.path("snrDb").asDouble()).isLessThan(20);
                        }
                      });
            });
  }

  @Test
  void theAverageKeepsToTheBitsAndTheyGoToTheLayersThatGainMost() {
    JsonNode report = mixed("--max-bits", 6.2);
    double bits = report.path("bitsPerWeight").asDouble();
    assertThat(bits).isLessThanOrEqualTo(6.2).isGreaterThan(5.2);
    double before = mixed("--max-bits", 5.0).path("bitsPerWeight").asDouble();
    assertThat(before).isLessThanOrEqualTo(5.0);
    JsonNode choices = report.path("choices");
    int last = choices.size() - 1;
    assertThat(choices.path(last).path("bits").asDouble())
        .isGreaterThanOrEqualTo(choices.path(0).path("bits").asDouble());
  }

  @Test
  void whatIsWrittenOpensAndRunsInAComputeTypeALayer() {
    mixed("--max-bits", 7, "--candidates", "nf4,qint8,float8_e4m3fn,torchao-int8wo,original");
    try (Checkpoint opened = Checkpoint.open(temp.resolve("out.safetensors"));
        Device device = Device.best();
        Device reference = Device.of("reference")) {
      assertThat(opened.layers()).isNotEmpty();
      float[] x = new float[256];
      java.util.Arrays.fill(x, 0.5f);
      for (int layer = 0; layer < 5; layer++) {
        Compute compute = layer % 2 == 0 ? Compute.F32 : Compute.BF16;
        float[] y = new float[64];
        float[] expected = new float[64];
        try (Linear fast = opened.linear("l" + layer, compute, device);
            Linear exact = opened.linear("l" + layer, Compute.F32, reference)) {
          fast.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(y));
          exact.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(expected));
        }
        for (int i = 0; i < 64; i++) {
          assertThat(y[i]).isCloseTo(expected[i], org.assertj.core.api.Assertions.within(0.5f));
        }
      }
    }
  }

  @Test
  void theTableSaysWhyAndTheReportIsKept() throws Exception {
    Path json = temp.resolve("report.json");
    Object[] args = {
      "quantize",
      model(),
      "-o",
      temp.resolve("o"),
      "--auto-mixed",
      "--max-bits",
      4,
      "--report",
      json
    };
    assertThat(Cli.run(args).succeeds().out())
        .contains("WHY", "average", "bits a weight", "gain more");
    JsonNode report = new ObjectMapper().readTree(Files.readString(json));
    assertThat(report.path("choices").size()).isEqualTo(5);
    assertThat(report.path("layers").path(0).path("relativeError").asDouble()).isPositive();
  }

  @Test
  void refusesLimitsThatCannotBe() {
    Path out = temp.resolve("o");
    Cli.run("quantize", model(), "-o", out, "--auto-mixed")
        .isMisused("neither max-bits nor min-snr");
    Cli.run("quantize", model(), "-o", out, "--auto-mixed", "--max-bits", 4, "--min-snr", 30)
        .isMisused("both max-bits and min-snr");
    Cli.run("quantize", model(), "-o", out, "--format", "nf4", "--max-bits", 4)
        .isMisused("--auto-mixed");
    Cli.run("quantize", model(), "-o", out, "--auto-mixed", "--max-bits", 4, "--candidates", "int3")
        .isMisused("--candidates", "'int3'");
    Cli.run("quantize", model(), "-o", out, "--auto-mixed", "--max-bits", 1)
        .fails("max-bits: found 1.0, expected at least 2.");
    assertThat(Cli.names(temp)).containsExactly("model.safetensors");
  }

  @Test
  void typesWithoutScalesAreWrittenAsFloats() {
    for (DType type : List.of(DType.F16, DType.BF16, DType.F32)) {
      String name = type == DType.F16 ? "float16" : type == DType.BF16 ? "bfloat16" : "float32";
      Path out = temp.resolve(name);
      Cli.run("quantize", model(), "-o", out, "--dtype", name).succeeds();
      assertThat(TensorFile.read(out).tensors.get("l1.weight").dtype()).isEqualTo(type);
    }
    Path out = temp.resolve("same");
    Cli.run("quantize", model(), "-o", out, "--dtype", "original").succeeds();
    assertThat(out).hasSameBinaryContentAs(temp.resolve("model.safetensors"));
    Cli.run("quantize", model(), "-o", out, "--dtype", "float16", "--strategy", "block")
        .isMisused("--strategy", "it has no scales");
    Cli.run("quantize", model(), "-o", out, "--dtype", "float16", "--scale", "mse")
        .fails("plain floats have no scales");
  }
}
