package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import java.lang.foreign.Arena;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

class BenchLinearTest {
  @ParameterizedTest
  @CsvSource({
    // codes and scales of 24 x 160
    "nf4,f32,1920,240",
    "I4,i8,1920,480",
    "i8,bf16,3840,96",
    "F8_E4M3,f32,3840,4",
    "F4_E2M1,f32,1920,240",
    "BF16,f32,7680,0"
  })
  void figuresHangTogether(String encoding, String compute, long codeBytes, long scaleBytes) {
    JsonNode report =
        Cli.run(
                "bench",
                "linear",
                "--encoding",
                encoding,
                "--shape",
                "9x24x160",
                "--compute",
                compute,
                "--backend",
                "reference",
                "--threads",
                1,
                "--seconds",
                0.05,
                "--json")
            .json();
    assertThat(report.properties().stream().map(java.util.Map.Entry::getKey))
        .containsExactly(
            "encoding",
            "m",
            "n",
            "k",
            "compute",
            "backend",
            "threads",
            "kernel",
            "ms",
            "gflops",
            "weightGBps");
    assertThat(report.get("encoding").asText()).isEqualToIgnoringCase(encoding);
    assertThat(report.get("m").asInt()).isEqualTo(9);
    assertThat(report.get("n").asInt()).isEqualTo(24);
    assertThat(report.get("k").asInt()).isEqualTo(160);
    assertThat(report.get("compute").asText()).isEqualTo(compute);
    assertThat(report.get("backend").asText()).isEqualTo("reference");
    assertThat(report.get("threads").asInt()).isEqualTo(1);
    assertThat(report.get("kernel").asText())
        .isEqualTo(
            "linear_"
                + compute
                + "_"
                + encoding.toLowerCase(java.util.Locale.ROOT)
                + "__reference");
    double nanos = 1e6 * report.get("ms").asDouble();
    assertThat(nanos).isPositive();
    assertThat(report.get("gflops").asDouble()).isCloseTo(2.0 * 9 * 24 * 160 / nanos, within(1e-9));
    assertThat(report.get("weightGBps").asDouble())
        .isCloseTo((codeBytes + scaleBytes) / nanos, within(1e-9));
  }

  @Test
  void fewRowsGoRoundSeveralWeights() {
    String out =
        Cli.run("bench", "linear", "--encoding", "i8", "--shape", "1x512x1024", "--seconds", 0.05)
            .succeeds()
            .out();
    assertThat(out).contains("linear I8 1 x 512 x 1024, compute f32", "GFLOP/s", "GB/s");
  }

  @Test
  void refusesWhatIsNotWhatWasAskedFor() {
    Cli.run(
            "bench",
            "linear",
            "--encoding",
            "f8_e5m2",
            "--shape",
            "1x8x8",
            "--compute",
            "i8",
            "--backend",
            "reference")
        .fails("nothing on reference", "F8_E5M2", "I8", "no kernel");
  }

  @Test
  void listsWhatIsValid() {
    Cli.run("bench", "linear", "--encoding", "q9", "--shape", "1x8x8")
        .isMisused("q9", "NF4", "F8_E4M3", "I8");
    Cli.run("bench", "linear", "--encoding", "f8_e8m0", "--shape", "1x8x8")
        .isMisused("F8_E8M0", "NF4");
    Cli.run("bench", "linear", "--encoding", "nf4").isMisused("--shape");
    Cli.run("bench", "linear", "--encoding", "nf4", "--shape", "1x8x8", "--seconds", 0)
        .isMisused("--seconds", "found 0");
    Cli.run("bench").isMisused("missing command");
    Cli.run("bench", "quadratic").isMisused("quadratic");
  }

  @ParameterizedTest
  @CsvSource({
    "8x8",
    "0x8x8",
    "1x-8x8",
    "1x8x8x8",
    "axbxc",
    "1x4000000000000x4000000000000",
    "99999999999999999999x1x1"
  })
  void namesAShapeThatCannotBe(String shape) {
    Cli.run("bench", "linear", "--encoding", "i8", "--shape", shape).isMisused("--shape", shape);
  }

  private static java.util.stream.Stream<Encoding> encodings() {
    return RandomWeight.encodings().stream();
  }

  @ParameterizedTest
  @MethodSource("encodings")
  void everyEncodingMakesAWeightOfNumbers(Encoding encoding) {
    try (Arena arena = Arena.ofConfined();
        dev.gatun.Device device = dev.gatun.Device.of("reference", 1)) {
      long k = encoding.isBlock() ? 2L * encoding.blockElements() : 77;
      var weight = RandomWeight.make(encoding, 3, k, arena);
      var floats = arena.allocate(3 * k * 4L, 64);
      device.backend().dequantize(weight.matrix(), 0, 3, floats, Encoding.F32);
      float[] values = floats.toArray(java.lang.foreign.ValueLayout.JAVA_FLOAT);
      double sum = 0;
      for (float value : values) {
        assertThat(value).isFinite();
        sum += Math.abs(value);
      }
      assertThat(sum).isPositive();
    }
  }

  @Test
  void goesRoundMoreMemoryThanTheCachesHold() {
    assertThat(Caches.parse("2048K\n")).isEqualTo(2 << 20);
    assertThat(Caches.parse("32M")).isEqualTo(32 << 20);
    assertThat(Caches.parse("?")).isZero();
    assertThat(Caches.largest()).isPositive();
    assertThat(Caches.copiesBeyond(1L << 40)).isEqualTo(2);
    long weight = 1 << 20;
    assertThat(Caches.copiesBeyond(weight) * weight)
        .isGreaterThan(Math.min(Caches.largest(), 1L << 30));
  }
}
