package dev.gatun.checkpoint;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * Temporary files of runs that did not end. A run that is stopped from outside (Ctrl-C, SIGTERM)
 * deletes its own; those of one that was killed are deleted by the next run that writes the same
 * file. Every temporary file is locked while it is written, and a lock ends with its process: what
 * is not locked belongs to nobody.
 */
final class Leftovers {
  /** How the name of a temporary file ends. */
  static final String SUFFIX = ".tmp";

  private static final Set<Path> OPEN = ConcurrentHashMap.newKeySet();

  static {
    Runtime.getRuntime()
        .addShutdownHook(new Thread(() -> OPEN.forEach(Leftovers::remove), "gatun-cleanup"));
  }

  private Leftovers() {}

  /** Creates a temporary file, locked. */
  static FileChannel create(Path temporary) throws IOException {
    OPEN.add(temporary);
    FileChannel channel =
        FileChannel.open(
            temporary,
            Set.of(
                StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE, StandardOpenOption.READ));
    try {
      channel.tryLock();
    } catch (IOException e) {
      return channel; // a file system without locks: nothing will be cleaned up there
    }
    return channel;
  }

  /** The file has got its name or is gone. */
  static void forget(Path temporary) {
    OPEN.remove(temporary);
  }

  /** Deletes what killed runs have left of this file. */
  static void delete(Path target) throws IOException {
    Path directory = target.toAbsolutePath().getParent();
    if (directory == null || !Files.isDirectory(directory)) {
      return;
    }
    String start = "." + target.getFileName() + ".";
    try (DirectoryStream<Path> files =
        Files.newDirectoryStream(directory, file -> isTemporary(file, start))) {
      for (Path file : files) {
        if (belongsToNobody(file)) {
          remove(file);
        }
      }
    }
  }

  /** {@code .NAME.RANDOM.tmp}: the middle is one word. */
  private static boolean isTemporary(Path file, String start) {
    String name = file.getFileName().toString();
    return name.length() > start.length() + SUFFIX.length()
        && name.startsWith(start)
        && name.endsWith(SUFFIX)
        && name.indexOf('.', start.length()) == name.length() - SUFFIX.length();
  }

  private static boolean belongsToNobody(Path file) {
    if (OPEN.stream().anyMatch(open -> open.toAbsolutePath().equals(file.toAbsolutePath()))) {
      return false;
    }
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.WRITE)) {
      FileLock lock = channel.tryLock();
      return lock != null;
    } catch (IOException | OverlappingFileLockException e) {
      return false;
    }
  }

  private static void remove(Path file) {
    try {
      Files.deleteIfExists(file);
    } catch (IOException e) {
      System.getLogger("dev.gatun")
          .log(System.Logger.Level.WARNING, "cannot delete " + file + ": " + e.getMessage());
    }
  }
}
