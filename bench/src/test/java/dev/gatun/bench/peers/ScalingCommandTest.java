package dev.gatun.bench.peers;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.cli.Gatun;
import java.io.PrintWriter;
import java.io.StringWriter;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class ScalingCommandTest {
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  private int gatun(String... args) {
    return Gatun.run(new PrintWriter(out), new PrintWriter(err), args);
  }

  @Test
  void measuresThreadsCallersAndIdleness() throws Exception {
    assumeTrue(
        "on".equals(System.getProperty("gatun.test.probe")), "built with -Dgatun.native=off");
    int code =
        gatun(
            "bench",
            "scaling",
            "--json",
            "--seconds",
            "0",
            "--shape",
            "128x256",
            "--m",
            "1,9",
            "--work",
            "int4-g32,f32",
            "--threads",
            "2");
    assertThat(code).as(err.toString()).isZero();
    JsonNode json = new ObjectMapper().readTree(out.toString());
    assertThat(json.get("results")).hasSize(4);
    for (JsonNode row : json.get("results")) {
      assertThat(row.get("msOneThread").asDouble()).isPositive();
      assertThat(row.get("msAllThreads").asDouble()).isPositive();
      assertThat(row.get("callsPerSecondAlone").asDouble()).isPositive();
      assertThat(row.get("callsPerSecondTogether").asDouble()).isPositive();
    }
    assertThat(json.get("idleCpuMsPerSecond").asDouble()).isNotNegative();
  }

  @ParameterizedTest
  @CsvSource({"--work,int3", "--shape,64", "--shape,64x33", "--m,0", "--threads,0", "--seconds,-1"})
  void refusesOptionsThatMakeNoSense(String option, String value) {
    assertThat(gatun("bench", "scaling", option, value)).isEqualTo(2);
    assertThat(err.toString()).contains(option);
  }
}
