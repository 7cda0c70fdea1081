package dev.gatun.kernel.vector;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Device;
import dev.gatun.GatunException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** The library with and without the incubator module. */
class VectorProviderTest {
  /** What a program sees: the probes, the best device but the native one, and vector by name. */
  static final class Program {
    private Program() {}

    public static void main(String[] args) {
      Device.probe().forEach(p -> System.out.println(p.backend() + ": " + p.detail()));
      try (Device device = Device.of("reference")) {
        System.out.println("runs on " + device.name());
      }
      try (Device device = Device.of("vector")) {
        System.out.println("runs on " + device.name());
      } catch (GatunException e) {
        System.out.println(e.getMessage());
      }
    }
  }

  private static String run(String... flags) throws IOException, InterruptedException {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.addAll(List.of(flags));
    command.addAll(List.of("-cp", System.getProperty("java.class.path"), Program.class.getName()));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as(output).isZero();
    return output;
  }

  @Test
  void saysWhatIsMissingAndWorksWithoutIt() throws Exception {
    assertThat(run())
        .contains("vector: needs --add-modules jdk.incubator.vector\n")
        .contains("runs on reference\n")
        .contains("backend vector is not available: needs --add-modules jdk.incubator.vector\n")
        .doesNotContain("NoClassDefFoundError");
  }

  @Test
  void runsWithTheModule() throws Exception {
    assertThat(run("--add-modules=jdk.incubator.vector")).contains("runs on vector\n");
  }
}
