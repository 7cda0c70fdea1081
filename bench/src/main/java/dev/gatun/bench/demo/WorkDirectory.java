package dev.gatun.bench.demo;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.FileVisitResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.SimpleFileVisitor;
import java.nio.file.attribute.BasicFileAttributes;
import org.jspecify.annotations.Nullable;

/** A temporary directory that is gone when it is closed, and when the JVM is ended from outside. */
final class WorkDirectory implements AutoCloseable {
  private final Path path;
  private final Thread hook;

  WorkDirectory() {
    try {
      path = Files.createTempDirectory("gatun-demo-");
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    hook = new Thread(() -> delete(path), "gatun-demo-cleanup");
    Runtime.getRuntime().addShutdownHook(hook);
  }

  Path path() {
    return path;
  }

  @Override
  public void close() {
    delete(path);
    try {
      Runtime.getRuntime().removeShutdownHook(hook);
    } catch (IllegalStateException e) {
      // The JVM is ending: the hook finds nothing left to delete.
    }
  }

  private static void delete(Path root) {
    try {
      if (Files.exists(root)) {
        Files.walkFileTree(root, new Deleter());
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static final class Deleter extends SimpleFileVisitor<Path> {
    @Override
    public FileVisitResult visitFile(Path file, BasicFileAttributes attributes) throws IOException {
      Files.deleteIfExists(file);
      return FileVisitResult.CONTINUE;
    }

    @Override
    public FileVisitResult postVisitDirectory(Path directory, @Nullable IOException e)
        throws IOException {
      if (e != null) {
        throw e;
      }
      Files.deleteIfExists(directory);
      return FileVisitResult.CONTINUE;
    }
  }
}
