package dev.gatun.bench;

import dev.gatun.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Objects;

/** Files that a benchmark leaves behind. */
public final class Outputs {
  private Outputs() {}

  /**
   * Checks before a long run that a file can be written after it.
   *
   * @throws GatunException when its directory is missing or cannot be written to
   */
  public static void check(Path file) {
    Path directory = directory(file);
    if (!Files.isDirectory(directory) || !Files.isWritable(directory)) {
      throw new GatunException(file + ": found no directory that can be written to, expected one");
    }
  }

  /** Writes a file, whole or not at all. */
  public static void write(Path file, byte[] bytes) throws IOException {
    Path unfinished = Files.createTempFile(directory(file), ".gatun-", ".tmp");
    try {
      Files.write(unfinished, bytes);
      Files.move(unfinished, file, StandardCopyOption.REPLACE_EXISTING);
    } finally {
      Files.deleteIfExists(unfinished);
    }
  }

  private static Path directory(Path file) {
    return Objects.requireNonNull(file.toAbsolutePath().getParent());
  }
}
