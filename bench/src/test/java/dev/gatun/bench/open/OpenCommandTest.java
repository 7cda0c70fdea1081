package dev.gatun.bench.open;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.cli.Gatun;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class OpenCommandTest {
  private final StringWriter out = new StringWriter();
  private final StringWriter err = new StringWriter();

  private int gatun(String... args) {
    return Gatun.run(new PrintWriter(out), new PrintWriter(err), args);
  }

  @Test
  void aCheckpointOfMoreThanFourGibibytesIsMappedNotRead() throws Exception {
    assumeTrue(Files.isReadable(Path.of("/proc/self/status")), "memory is counted on Linux only");
    assertThat(gatun("bench", "open", "--json", "--shape", "4096x8192")).as(err::toString).isZero();
    JsonNode json = new ObjectMapper().readTree(out.toString());
    assertThat(json.get("fileMiB").asDouble()).isGreaterThan(4096);
    assertThat(json.get("kernel").asText()).startsWith("linear_f32_f8_e4m3__");
    JsonNode growth = json.get("growthMiB");
    for (String step : new String[] {"opened", "product"}) {
      // The rest is the JVM's: far from the file's size either way, and what was packed is let go.
      assertThat(growth.get(step).get("mapped").asDouble()).as(step).isLessThan(16);
      assertThat(growth.get(step).get("own").asDouble()).as(step).isLessThan(512);
    }
  }

  @ParameterizedTest
  @CsvSource({"--shape,64", "--shape,0x64", "--shape,99999x99999", "--gib,0", "--gib,NaN"})
  void refusesOptionsThatMakeNoSense(String option, String value) {
    assertThat(gatun("bench", "open", option, value)).isEqualTo(2);
    assertThat(err.toString()).contains(option);
  }
}
