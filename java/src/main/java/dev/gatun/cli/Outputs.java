package dev.gatun.cli;

import dev.gatun.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collection;

/** What is checked of an output path before any work is done. */
final class Outputs {
  private Outputs() {}

  /**
   * Refuses an output that is one of the inputs.
   *
   * @param inputs files that are read
   */
  static void notAnInput(Path output, Collection<Path> inputs) {
    for (Path input : inputs) {
      if (same(output, input)) {
        throw new GatunException(output + ": found the input as output, expected another file");
      }
    }
  }

  private static boolean same(Path a, Path b) {
    try {
      return Files.exists(a) && Files.isSameFile(a, b);
    } catch (IOException e) {
      return a.toAbsolutePath().normalize().equals(b.toAbsolutePath().normalize());
    }
  }
}
