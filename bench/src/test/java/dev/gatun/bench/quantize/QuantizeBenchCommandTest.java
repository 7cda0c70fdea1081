package dev.gatun.bench.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.Encoding;
import dev.gatun.cli.Gatun;
import java.awt.image.BufferedImage;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.Stream;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** {@code gatun bench quantize}, {@code gatun bench quality} and {@code gatun quantize --chart}. */
class QuantizeBenchCommandTest {
  @TempDir Path temp;
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  private int gatun(Object... args) {
    String[] words = Stream.of(args).map(Object::toString).toArray(String[]::new);
    return Gatun.run(new PrintWriter(out), new PrintWriter(err), words);
  }

  @Test
  void measuresEveryFormatBesideTheCopyAndLeavesNothing() throws Exception {
    assumeTrue(Files.isReadable(Path.of("/proc/self/status")), "memory is counted on Linux only");
    int code =
        gatun(
            "bench",
            "quantize",
            "--gib",
            "0.004",
            "--shape",
            "512x512",
            "--rounds",
            1,
            "--directory",
            temp,
            "--json");
    assertThat(code).as(err::toString).isZero();
    JsonNode rows = new ObjectMapper().readTree(out.toString());
    assertThat(rows.findValuesAsText("format"))
        .containsExactly("copy", "float8_e4m3fn", "qint8", "nf4");
    rows.forEach(row -> assertThat(row.get("GBps").asDouble()).isPositive());
    assertThat(temp).isEmptyDirectory();
  }

  @Test
  void mseIsNoWorseOnTheRealModel() throws Exception {
    int code =
        gatun(
            "bench", "quality", "--formats", "comfy-nvfp4", "--scales", "absmax,mse,hqq", "--json");
    assertThat(code).as(err::toString).isZero();
    JsonNode rows = new ObjectMapper().readTree(out.toString());
    assertThat(rows.findValuesAsText("scale")).containsExactly("absmax", "mse");
    assertThat(rows.get(1).get("worstSnrDb").asDouble())
        .isGreaterThan(rows.get(0).get("worstSnrDb").asDouble());
    assertThat(rows.get(1).get("worstCosine").asDouble()).isGreaterThan(0.95);
  }

  @Test
  void drawsTheReport() throws Exception {
    Path source = temp.resolve("s.safetensors");
    RandomCheckpoint.write(source, 3, 64, 256, Encoding.F32);
    Path chart = temp.resolve("chart.png");
    int code =
        gatun(
            "quantize",
            source,
            "-o",
            temp.resolve("q"),
            "--auto-mixed",
            "--min-snr",
            25,
            "--chart",
            chart);
    assertThat(code).as(err::toString).isZero();
    BufferedImage image = ImageIO.read(chart.toFile());
    assertThat(image.getWidth()).isEqualTo(960);
  }

  @ParameterizedTest
  @CsvSource({
    "quantize,--shape,64",
    "quantize,--gib,0",
    "quantize,--dtype,f64",
    "quantize,--formats,int3",
    "quantize,--rounds,0",
    "quality,--formats,int3",
    "quality,--scales,minmax",
    "quality,--threads,0"
  })
  void refusesOptionsThatMakeNoSense(String command, String option, String value) {
    assertThat(gatun("bench", command, option, value)).isEqualTo(2);
    assertThat(err.toString()).contains(option);
  }
}
