package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.checkpoint.DType;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** {@code gatun quantize --scale --rounding --seed}. */
class QuantizeScaleTest {
  @TempDir Path temp;

  private Path original() {
    return TensorFile.original(DType.F32).write(temp.resolve("original.safetensors"));
  }

  private JsonNode quantize(String name, String format, Object... more) {
    Object[] args = {
      "quantize", original(), "-o", temp.resolve(name), "--format", format, "--json"
    };
    Object[] all = new Object[args.length + more.length];
    System.arraycopy(args, 0, all, 0, args.length);
    System.arraycopy(more, 0, all, args.length, more.length);
    return Cli.run(all).json();
  }

  private static double snr(JsonNode report, String layer) {
    for (JsonNode node : report.get("layers")) {
      if (node.get("name").asText().equals(layer)) {
        return node.get("snrDb").asDouble();
      }
    }
    throw new AssertionError("no layer " + layer);
  }

  @ParameterizedTest
  @CsvSource({"qint4,0.3", "qint2,1", "nf4,0.05", "torchao-int4wo,0.3"})
  void mseGainsDecibels(String format, double gain) {
    JsonNode absmax = quantize("a", format);
    JsonNode mse = quantize("b", format, "--scale", "mse");
    for (String layer : new String[] {"blocks.0.to_q", "blocks.0.proj"}) {
      assertThat(snr(mse, layer)).isGreaterThan(snr(absmax, layer) + gain);
    }
  }

  @Test
  void stochasticRoundingDoesNotDependOnTheThreads() {
    String[] seeded = {"--rounding", "stochastic", "--seed", "42", "--threads"};
    quantize("a", "nf4", seeded[0], seeded[1], seeded[2], seeded[3], seeded[4], 1);
    quantize("b", "nf4", seeded[0], seeded[1], seeded[2], seeded[3], seeded[4], 2);
    quantize("c", "nf4", "--rounding", "stochastic", "--seed", "43");
    assertThat(temp.resolve("a")).hasSameBinaryContentAs(temp.resolve("b"));
    assertThat(TensorFile.read(temp.resolve("a")).bytes("blocks.0.to_q.weight"))
        .isNotEqualTo(TensorFile.read(temp.resolve("c")).bytes("blocks.0.to_q.weight"));
  }

  @ParameterizedTest
  @CsvSource({
    "gguf-q8_0,mse,its blocks are quantized by ggml's own rule",
    "qint8,hqq,it has no offsets",
    "nf4-nested,percentile=99,its scales are quantized themselves"
  })
  void refusesByNameWhatTheFormatDoesNot(String format, String scale, String why) {
    Path output = temp.resolve("q");
    Cli.run("quantize", original(), "-o", output, "--format", format, "--scale", scale)
        .fails("found scale " + (scale.contains("=") ? scale + ".0" : scale), format, why);
    assertThat(Cli.names(temp)).containsExactly("original.safetensors");
  }

  @Test
  void refusesMethodsAndSeedsThatMeanNothing() {
    Cli.run("quantize", "a", "-o", "b", "--format", "nf4", "--scale", "minmax")
        .isMisused("--scale", "'minmax'", "absmax, percentile=P, mse or hqq");
    Cli.run("quantize", "a", "-o", "b", "--format", "nf4", "--rounding", "up")
        .isMisused("--rounding", "'up'", "nearest, stochastic");
    Cli.run("quantize", "a", "-o", "b", "--format", "nf4", "--seed", "3")
        .isMisused("--seed", "--rounding stochastic");
  }
}
