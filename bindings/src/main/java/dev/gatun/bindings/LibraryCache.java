package dev.gatun.bindings;

import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFileAttributeView;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Set;

/**
 * Copies a library to {@code <directory>/<SHA-256 of its content>/<name>}, once: a copy that is
 * there and whole is used as it is, one that is damaged is replaced. The copy appears under its
 * name by an atomic rename, so that processes that start together do not see half of it.
 */
final class LibraryCache {
  /**
   * A whole copy.
   *
   * @param note what had to be mended, ending in a colon and a blank; empty as a rule
   */
  record Copy(Path file, String note) {}

  private static final Set<PosixFilePermission> OTHERS_WRITE =
      Set.of(PosixFilePermission.GROUP_WRITE, PosixFilePermission.OTHERS_WRITE);

  private final String name;
  private final byte[] content;
  private final byte[] hash;

  LibraryCache(String name, byte[] content) {
    this.name = name;
    this.content = content;
    this.hash = sha256(content);
  }

  private static byte[] sha256(byte[] bytes) {
    try {
      return MessageDigest.getInstance("SHA-256").digest(bytes);
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every Java platform has SHA-256", e);
    }
  }

  Copy copyIn(Path directory) throws IOException {
    Path own = directory.resolve(HexFormat.of().formatHex(hash));
    createPrivate(own);
    Path file = own.resolve(name);
    String note = "";
    if (Files.exists(file)) {
      if (isWhole(file)) {
        return new Copy(file, "");
      }
      note = "was damaged and written anew: ";
    }
    Path temporary = Files.createTempFile(own, name, ".part");
    try {
      Files.write(temporary, content);
      Files.move(
          temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } finally {
      Files.deleteIfExists(temporary);
    }
    if (!isWhole(file)) {
      throw new FileSystemException(file.toString(), null, "differs from what was written to it");
    }
    return new Copy(file, note);
  }

  private boolean isWhole(Path file) throws IOException {
    return Files.isRegularFile(file)
        && Files.size(file) == content.length
        && Arrays.equals(sha256(Files.readAllBytes(file)), hash);
  }

  /** A directory that nobody else can put a library into. */
  private static void createPrivate(Path directory) throws IOException {
    if (!directory.getFileSystem().supportedFileAttributeViews().contains("posix")) {
      Files.createDirectories(directory);
      return;
    }
    Files.createDirectories(
        directory,
        PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
    Object me = myUid(directory);
    for (Path each : new Path[] {directory, directory.getParent()}) {
      var view = Files.getFileAttributeView(each, PosixFileAttributeView.class);
      boolean shared =
          view.readAttributes().permissions().stream().anyMatch(OTHERS_WRITE::contains);
      if (shared || !me.equals(Files.getAttribute(each, "unix:uid"))) {
        throw new FileSystemException(each.toString(), null, "can be written by other users");
      }
    }
  }

  /** Java does not tell who it runs as; Linux does, and elsewhere a new file's owner. */
  private static Object myUid(Path directory) throws IOException {
    Path self = Path.of("/proc/self");
    if (Files.exists(self)) {
      return Files.getAttribute(self, "unix:uid");
    }
    Path probe = Files.createTempFile(directory, "owner", ".part");
    try {
      return Files.getAttribute(probe, "unix:uid");
    } finally {
      Files.delete(probe);
    }
  }

  /** One clause for people. */
  static String reason(Exception e) {
    return switch (e) {
      case AccessDeniedException _ -> "cannot be written";
      case FileAlreadyExistsException f -> f.getFile() + " is not a directory";
      case NotDirectoryException f -> f.getFile() + " is not a directory";
      case NoSuchFileException f -> f.getFile() + " does not exist";
      case FileSystemException f when f.getReason() != null -> String.valueOf(f.getReason());
      default -> String.valueOf(e.getMessage());
    };
  }
}
