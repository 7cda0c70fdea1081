package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;

/**
 * One safetensors file, mapped: {@code u64 header length | JSON header | data}. Every rule of the
 * format is checked when it is opened; no tensor is read into the heap. Files may be larger than 2
 * GiB and tensors need not be aligned.
 *
 * <p>A file that is cut short by another process while it is mapped cannot crash the JVM through
 * Java code (the access throws {@link InternalError}); {@link #verifyLength()} is called before
 * native code is handed any of it.
 */
public final class SafetensorsFile implements AutoCloseable {
  private static final ValueLayout.OfLong U64 =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final Path path;
  private final Arena arena;
  private final long length;
  private final SafetensorsHeader header;

  private SafetensorsFile(Path path, Arena arena, long length, SafetensorsHeader header) {
    this.path = path;
    this.arena = arena;
    this.length = length;
    this.header = header;
  }

  /**
   * Maps and checks a file.
   *
   * @throws GatunException when it cannot be read or breaks a rule of the format: names file,
   *     tensor, found and expected
   */
  public static SafetensorsFile open(Path path) {
    Arena arena = Arena.ofShared();
    boolean done = false;
    try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
      long length = channel.size();
      if (length < Long.BYTES) {
        throw Problem.file(path, length + " bytes", "a safetensors file of at least 8 bytes");
      }
      MemorySegment mapped = channel.map(FileChannel.MapMode.READ_ONLY, 0, length, arena);
      SafetensorsHeader header = header(path, mapped);
      done = true;
      return new SafetensorsFile(path, arena, length, header);
    } catch (IOException e) {
      throw unreadable(path, e);
    } catch (InternalError e) {
      throw new GatunException(
          path + ": found a file that shrank while it was read, expected a stable file", e);
    } finally {
      if (!done) {
        arena.close();
      }
    }
  }

  /** The file's path as it was given. */
  public Path path() {
    return path;
  }

  /**
   * Every tensor by name, in the order of their bytes. The data are read-only and end with {@link
   * #close()}.
   */
  public Map<String, Tensor> tensors() {
    return header.tensors();
  }

  /** {@code __metadata__}; empty when there is none. */
  public Map<String, String> metadata() {
    return header.metadata();
  }

  /**
   * Checks that the file is still as long as when it was mapped.
   *
   * @throws GatunException when it is shorter: native code must not touch it any more
   */
  public void verifyLength() {
    long now;
    try {
      now = Files.size(path);
    } catch (NoSuchFileException e) {
      return; // deleted, but the mapping keeps its bytes
    } catch (IOException e) {
      throw unreadable(path, e);
    }
    if (now < length) {
      throw Problem.file(path, now + " bytes", length + ", the length when it was opened");
    }
  }

  /**
   * Unmaps the file. A second call does nothing; using a tensor afterwards is an {@link
   * IllegalStateException}.
   */
  @Override
  public void close() {
    if (arena.scope().isAlive()) {
      arena.close();
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

  private static SafetensorsHeader header(Path path, MemorySegment mapped) {
    long headerLength = mapped.get(U64, 0);
    if (headerLength < 0 || headerLength > Json.LARGEST_HEADER) {
      throw Problem.file(
          path,
          "a header of " + Long.toUnsignedString(headerLength) + " bytes",
          "at most " + Json.LARGEST_HEADER);
    }
    if (headerLength > mapped.byteSize() - Long.BYTES) {
      throw Problem.file(
          path,
          "a header of " + headerLength + " bytes",
          "at most the "
              + (mapped.byteSize() - Long.BYTES)
              + " that the file has after its first 8");
    }
    byte[] json = mapped.asSlice(Long.BYTES, headerLength).toArray(ValueLayout.JAVA_BYTE);
    return SafetensorsHeader.parse(path, json, mapped.asSlice(Long.BYTES + headerLength));
  }
}
