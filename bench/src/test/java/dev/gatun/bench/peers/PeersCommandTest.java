package dev.gatun.bench.peers;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.cli.Gatun;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class PeersCommandTest {
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  private int gatun(String... args) {
    return Gatun.run(new PrintWriter(out), new PrintWriter(err), args);
  }

  @Test
  void everyEngineComputesTheSameAndIsMeasured(@TempDir Path directory) throws Exception {
    assumeTrue(
        "on".equals(System.getProperty("gatun.test.probe")), "built with -Dgatun.native=off");
    int code =
        gatun(
            "bench",
            "peers",
            "--json",
            "--seconds",
            "0",
            "--shape",
            "192x256",
            "--m",
            "1,9",
            "--cold",
            "1",
            "-o",
            directory.toString());
    assertThat(code).as(err.toString()).isZero();
    JsonNode json = new ObjectMapper().readTree(out.toString());
    Set<String> measured = new HashSet<>();
    for (JsonNode result : json.get("results")) {
      assertThat(result.get("ms").asDouble()).isPositive();
      assertThat(result.get("gflops").asDouble()).isPositive();
      assertThat(result.get("relativeError").asDouble()).isBetween(0.0, 0.03);
      assertThat(result.get("cold").asBoolean()).isEqualTo(result.get("m").asInt() == 1);
      if (result.get("engine").asText().equals("onnxruntime")) {
        measured.add(result.get("work").asText() + " " + result.get("m").asInt());
      }
    }
    Set<String> expected =
        Stream.of(Work.INT4_G32, Work.INT4_G128, Work.INT8_G32, Work.INT8_ROW, Work.NF4, Work.F32)
            .flatMap(work -> Stream.of(work.label() + " 1", work.label() + " 9"))
            .collect(Collectors.toSet());
    assertThat(measured).isEqualTo(expected);
    assertThat(json.get("absent").toString()).contains("\"onnxruntime\"").contains("fp8");
    try (var files = Files.list(directory)) {
      assertThat(files.map(file -> file.getFileName().toString()))
          .containsExactlyInAnyOrder(
              "gatun-peers.json", "gatun-peers-roofline.png", "gatun-peers-throughput.png");
    }
  }

  @ParameterizedTest
  @CsvSource({
    "--work,int3",
    "--shape,64",
    "--shape,0x64",
    "--shape,99999x99999",
    "--m,0",
    "--threads,0",
    "--cold,0",
    "--seconds,-1"
  })
  void refusesOptionsThatMakeNoSense(String option, String value) {
    assertThat(gatun("bench", "peers", option, value)).isEqualTo(2);
    assertThat(err.toString()).contains(option);
  }
}
