package dev.gatun.bench.demo;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.Device;
import dev.gatun.cli.Gatun;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class DemoCommandTest {
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  private int gatun(String... args) {
    return Gatun.run(new PrintWriter(out), new PrintWriter(err), args);
  }

  @Test
  void everyFormatStaysWithinItsBarOnTheRealModel(@TempDir Path directory) throws Exception {
    int code = gatun("demo", "--json", "--seconds", "0", "-o", directory.toString());
    assertThat(code).as(err.toString()).isZero();
    Map<String, Double> bars = Map.of("f32", 0.99999, "int8", 0.99, "fp8", 0.99, "nf4", 0.95);
    JsonNode formats = new ObjectMapper().readTree(out.toString());
    List<String> names = new ArrayList<>();
    for (JsonNode format : formats) {
      String name = format.get("format").asText();
      names.add(name);
      assertThat(format.get("worstCosine").asDouble()).as(name).isBetween(bars.get(name), 1.0);
      assertThat(format.get("meanCosine").asDouble())
          .isBetween(format.get("worstCosine").asDouble(), 1.0);
      JsonNode rates = format.get("sentencesPerSecond");
      assertThat(rates.get("onnxruntime").asDouble()).isPositive();
      for (String backend : List.of("native", "vector", "reference")) {
        boolean available =
            Device.probe().stream().anyMatch(p -> p.backend().equals(backend) && p.available());
        assertThat(rates.get(backend).isNull()).as("%s on %s", name, backend).isEqualTo(!available);
      }
    }
    assertThat(names).containsExactly("f32", "int8", "fp8", "nf4");
    assertThat(formats.get(0).get("mib").asDouble())
        .isGreaterThan(formats.get(1).get("mib").asDouble());
    assertThat(formats.get(1).get("mib").asDouble())
        .isGreaterThan(formats.get(3).get("mib").asDouble());
    try (var files = Files.list(directory)) {
      assertThat(files.map(file -> file.getFileName().toString()))
          .containsExactly("gatun-demo.png");
    }
    assertThat(ImageIO.read(directory.resolve("gatun-demo.png").toFile()).getWidth())
        .isGreaterThan(640);
  }

  @ParameterizedTest
  @CsvSource({"--threads,0", "--batch,0", "--seconds,NaN", "--threads,many"})
  void refusesOptionsThatMakeNoSense(String option, String value) {
    assertThat(gatun("demo", option, value)).isEqualTo(2);
    assertThat(err.toString()).contains(option);
  }

  @Test
  void saysBeforeItStartsThatTheChartCannotBeWritten(@TempDir Path directory) {
    Path missing = directory.resolve("missing");
    assertThat(gatun("demo", "-o", missing.toString())).isEqualTo(1);
    assertThat(err.toString()).contains(missing.toString()).doesNotContain("quantizing");
  }

  @Test
  void aCosineThatIsNoNumberMissesTheBar() {
    var result = new FormatResult(Format.NF4, 1, 1, new Cosines(0.99, Double.NaN), Map.of(), 1);
    assertThat(result.passes()).isFalse();
    assertThat(new FormatResult(Format.NF4, 1, 1, new Cosines(0.99, 0.949), Map.of(), 1).passes())
        .isFalse();
    assertThat(new FormatResult(Format.NF4, 1, 1, new Cosines(0.99, 0.951), Map.of(), 1).passes())
        .isTrue();
    float[] nan = {Float.NaN, 1};
    assertThat(Cosines.of(List.of(new float[] {1, 1}), List.of(nan), 2).worst()).isNaN();
  }
}
