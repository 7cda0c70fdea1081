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
      for (String cosine : List.of("MeanCosine", "WorstCosine")) {
        String own = Character.toLowerCase(cosine.charAt(0)) + cosine.substring(1);
        assertThat(row.get(own).asDouble())
            .as(name)
            .isBetween(row.get("weightOnly" + cosine).asDouble() - 0.005, 1.0);
      }
    }
    assertThat(rows)
        .containsExactly(
            "int8, static int8, outputs too",
            "int8, static int8",
            "qfloat8, static fp8, outputs too",
            "qfloat8, static fp8",
            "fp8, static fp8",
            "int8-smooth, dynamic int8");
    for (String format : List.of("int8", "qfloat8", "fp8")) {
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
  void aCosineThatIsNoNumberDoesNotPass() {
    Cosines good = new Cosines(0.99, 0.98);
    assertThat(CalibrateCommand.passes(row(good, new Cosines(0.986, 0.976)))).isTrue();
    assertThat(CalibrateCommand.passes(row(good, new Cosines(0.984, 0.98)))).isFalse();
    assertThat(CalibrateCommand.passes(row(good, new Cosines(0.99, 0.974)))).isFalse();
    assertThat(CalibrateCommand.passes(row(good, new Cosines(0.99, Double.NaN)))).isFalse();
  }

  private static Calibrator.Row row(Cosines weightOnly, Cosines calibrated) {
    return new Calibrator.Row("int8", "static", weightOnly, calibrated, "kernel");
  }
}
