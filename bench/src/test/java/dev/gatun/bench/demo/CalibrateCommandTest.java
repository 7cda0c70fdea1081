package dev.gatun.bench.demo;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.QuantizedTensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.cli.Gatun;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class CalibrateCommandTest {
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  private int gatun(String... args) {
    return Gatun.run(new PrintWriter(out), new PrintWriter(err), args);
  }

  /** On sentences that it was not calibrated on. */
  @Test
  void staticActivationsCostTheRealModelHardlyAnything(@TempDir Path directory) throws Exception {
    int code = gatun("calibrate", "--json", "-o", directory.toString());
    assertThat(code).as(err.toString()).isZero();
    List<String> rows = new ArrayList<>();
    for (JsonNode row : new ObjectMapper().readTree(out.toString())) {
      String name = row.get("format").asText() + ", " + row.get("activations").asText();
      rows.add(name);
      double mean = row.get("meanCosine").asDouble();
      assertThat(mean).as(name).isBetween(row.get("worstCosine").asDouble(), 1.0);
      // quanto's int8 has one scale for a tensor, outliers included, and nothing to smooth them.
      if (!row.get("format").asText().equals("int8")) {
        assertThat(mean).as(name).isGreaterThan(row.get("weightOnlyMeanCosine").asDouble() - 0.005);
      }
    }
    assertThat(rows)
        .containsExactly(
            "int8, static int8, outputs too",
            "int8, static int8",
            "qfloat8, static fp8, outputs too",
            "qfloat8, static fp8",
            "fp8, static fp8",
            "int8-smooth, static int8");
    for (String format : List.of("int8", "qfloat8", "fp8", "int8-smooth")) {
      try (Checkpoint checkpoint = Checkpoint.open(directory.resolve(format))) {
        assertThat(checkpoint.layers()).hasSize(36);
        for (QuantizedTensor weight : checkpoint.layers().values()) {
          assertThat(weight.inputRounding().orElseThrow().scale()).isNotEqualTo(1);
        }
      }
    }
  }

  @ParameterizedTest
  @CsvSource({"--momentum,2", "--percentile,0", "--smooth,-1", "--method,GUESS"})
  void refusesOptionsThatMakeNoSense(String option, String value) {
    assertThat(gatun("calibrate", option, value)).isEqualTo(2);
    assertThat(err.toString()).contains(option);
  }

  @Test
  void theBestOfAKindIsJudgedAndNoNumberDoesNotPass() {
    Cosines alone = new Cosines(0.99, 0.98);
    Calibrator.Row good = row("static int8", alone, new Cosines(0.986, 0.9));
    Calibrator.Row bad = row("static int8, outputs too", alone, new Cosines(0.984, 0.98));
    Calibrator.Row none = row("static int8", alone, new Cosines(Double.NaN, 0.98));
    assertThat(CalibrateCommand.best(List.of(none, bad, good), "static int8")).isEqualTo(good);
    assertThat(CalibrateCommand.passes(good)).isTrue();
    assertThat(CalibrateCommand.passes(bad)).isFalse();
    assertThat(CalibrateCommand.passes(none)).isFalse();
  }

  private static Calibrator.Row row(String activations, Cosines weightOnly, Cosines calibrated) {
    return new Calibrator.Row("int8", activations, weightOnly, calibrated, "kernel");
  }
}
