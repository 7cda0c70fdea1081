package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Optional;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/** A whole file, mapped for reading: what every container lies on. */
final class MappedFile implements AutoCloseable {
  private final Path path;
  private final Arena arena;
  private final MemorySegment bytes;
  private final FileChannel channel;

  private MappedFile(Path path, Arena arena, MemorySegment bytes, FileChannel channel) {
    this.path = path;
    this.arena = arena;
    this.bytes = bytes;
    this.channel = channel;
  }

  /** Maps a file and hands it to {@code reader}; unmaps it again when that throws. */
  static <T> T open(Path path, Function<MappedFile, T> reader) {
    Arena arena = Arena.ofShared();
    FileChannel channel = null;
    boolean done = false;
    try {
      channel = FileChannel.open(path, StandardOpenOption.READ);
      MemorySegment bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
      T result = reader.apply(new MappedFile(path, arena, bytes, channel));
      done = true;
      return result;
    } catch (IOException e) {
      throw unreadable(path, e);
    } catch (InternalError e) { // how the JVM reports a mapped page that is gone
      throw new GatunException(
          path + ": found a file that shrank while it was read, expected a stable file", e);
    } finally {
      if (!done) {
        arena.close();
        closeQuietly(channel);
      }
    }
  }

  Path path() {
    return path;
  }

  MemorySegment bytes() {
    return bytes;
  }

  /** Checks that the file is still as long as when it was mapped. */
  void verifyLength() {
    long now;
    try {
      now = Files.size(path);
    } catch (NoSuchFileException e) {
      return; // deleted, but the mapping keeps its bytes
    } catch (IOException e) {
      throw unreadable(path, e);
    }
    if (now < bytes.byteSize()) {
      throw Problem.file(
          path, now + " bytes", bytes.byteSize() + ", the length when it was opened");
    }
  }

  /**
   * Maps a part of the file once more: its pages count as this process's memory until the arena
   * ends, however long the file itself stays mapped.
   *
   * @param part a slice of {@link #bytes()}; empty for other memory
   */
  Optional<MemorySegment> again(MemorySegment part, Arena into) {
    if (!holds(part)) {
      return Optional.empty();
    }
    try {
      long offset = part.address() - bytes.address();
      return Optional.of(channel.map(FileChannel.MapMode.READ_ONLY, offset, part.byteSize(), into));
    } catch (IOException e) {
      throw unreadable(path, e);
    }
  }

  /** Whether these bytes are a slice of {@link #bytes()}. */
  boolean holds(MemorySegment part) {
    return part.isMapped()
        && part.address() >= bytes.address()
        && part.address() + part.byteSize() <= bytes.address() + bytes.byteSize();
  }

  /** Unmaps the file. A second call does nothing. */
  @Override
  public void close() {
    if (arena.scope().isAlive()) {
      arena.close();
    }
    closeQuietly(channel);
  }

  static void closeQuietly(@Nullable FileChannel channel) {
    try {
      if (channel != null) {
        channel.close();
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  static GatunException unreadable(Path path, IOException e) {
    if (e instanceof NoSuchFileException) {
      return new GatunException(path + ": found no such file, expected a safetensors file", e);
    }
    String why =
        e instanceof FileSystemException f && f.getReason() != null
            ? f.getReason()
            : e.getMessage();
    if (why == null || why.equals(path.toString())) {
      why = e.getClass().getSimpleName();
    }
    return new GatunException(path + ": cannot be read (" + why + ")", e);
  }
}
