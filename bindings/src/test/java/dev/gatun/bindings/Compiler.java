package dev.gatun.bindings;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.TimeUnit;

/** The C compiler of this machine, where there is one. */
final class Compiler {
  private Compiler() {}

  /** Runs it; a test that needs it is skipped where there is none. */
  static void compile(String... arguments) throws IOException, InterruptedException {
    List<String> command = new ArrayList<>(List.of(name(), "-Wall", "-Werror"));
    command.addAll(List.of(arguments));
    Process process = new ProcessBuilder(command).redirectErrorStream(true).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor(1, TimeUnit.MINUTES)).isTrue();
    assertThat(process.exitValue()).as(output).isZero();
  }

  /** A shared library of this C source. */
  static Path library(Path directory, String source) throws IOException, InterruptedException {
    Files.createDirectories(directory);
    Path c = Files.writeString(directory.resolve("source.c"), source);
    Path library = directory.resolve(LibraryKind.CPU.fileName());
    compile("-shared", "-fPIC", "-o", library.toString(), c.toString());
    return library;
  }

  private static String name() {
    String cc = System.getenv("CC");
    if (cc != null && !cc.isBlank()) {
      return cc;
    }
    for (String directory : System.getenv("PATH").split(":")) {
      for (String name : List.of("cc", "gcc", "clang")) {
        Path path = Path.of(directory, name);
        if (Files.isExecutable(path)) {
          return path.toString();
        }
      }
    }
    assumeTrue(false, "no C compiler on the PATH");
    throw new AssertionError();
  }
}
