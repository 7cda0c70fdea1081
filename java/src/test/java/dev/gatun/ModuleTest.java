package dev.gatun;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.File;
import java.io.IOException;
import java.lang.module.ModuleDescriptor;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;

/** The module descriptor: it offers what the class path offers, and it works. */
class ModuleTest {
  private static Path classes() throws Exception {
    return Path.of(Linear.class.getProtectionDomain().getCodeSource().getLocation().toURI());
  }

  private static ModuleDescriptor descriptor() throws Exception {
    try (var in = Files.newInputStream(classes().resolve("module-info.class"))) {
      return ModuleDescriptor.read(in);
    }
  }

  @Test
  void providesWhatTheServiceFilesName() throws Exception {
    Map<String, List<String>> services = new TreeMap<>();
    try (Stream<Path> files = Files.list(classes().resolve("META-INF/services"))) {
      for (Path file : files.toList()) {
        services.put(
            file.getFileName().toString(),
            Files.readAllLines(file).stream().filter(l -> !l.isBlank()).sorted().toList());
      }
    }
    assertThat(services).isNotEmpty();
    Map<String, List<String>> provides = new TreeMap<>();
    for (ModuleDescriptor.Provides p : descriptor().provides()) {
      provides.put(p.service(), p.providers().stream().sorted().toList());
    }
    assertThat(provides).isEqualTo(services);
    List<String> uses = new ArrayList<>(services.keySet());
    uses.add("dev.gatun.quantize.ReportChart"); // the benchmark module draws
    assertThat(descriptor().uses()).containsExactlyInAnyOrderElementsOf(uses);
  }

  @Test
  void runsFromTheModulePath() throws Exception {
    String output = run("layouts", "--json");
    assertThat(output).contains("comfyui").contains("bitsandbytes");
  }

  private static String run(String... arguments) throws IOException, InterruptedException {
    String path =
        Arrays.stream(System.getProperty("java.class.path").split(File.pathSeparator))
            .filter(ModuleTest::isNeeded)
            .collect(Collectors.joining(File.pathSeparator));
    List<String> command =
        Stream.concat(
                Stream.of(
                    Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                    "--module-path",
                    path,
                    "--enable-native-access=dev.gatun.bindings,dev.gatun",
                    "--illegal-native-access=deny",
                    "--module",
                    "dev.gatun/dev.gatun.cli.Gatun"),
                Arrays.stream(arguments))
            .toList();
    Path errors = Files.createTempFile("module-test", ".txt");
    Process process = new ProcessBuilder(command).redirectError(errors.toFile()).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor(1, TimeUnit.MINUTES)).isTrue();
    assertThat(process.exitValue()).as(Files.readString(errors)).isZero();
    Files.delete(errors);
    return output;
  }

  private static boolean isNeeded(String entry) {
    String name = Path.of(entry).getFileName().toString();
    return name.equals("classes")
        || Stream.of("gatun", "jackson", "picocli", "progressbar", "jline", "jspecify")
            .anyMatch(name::startsWith);
  }
}
