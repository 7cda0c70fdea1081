package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.AtomicMoveNotSupportedException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Predicate;

/**
 * A file that is there whole or not at all: written under a temporary name in the target's
 * directory, forced to disk and renamed. Closed without {@link #commit()}, it leaves nothing
 * behind.
 */
public final class OutputFile implements AutoCloseable {
  /** Bytes handed to the operating system at once. */
  private static final long CHUNK = 1L << 26;

  /** Bytes of an array that are copied at once. */
  private static final long ARRAY_CHUNK = 1L << 20;

  /** Bytes read back at once. */
  private static final long READ_CHUNK = 1L << 20;

  private final Path target;
  private final Path temporary;
  private final FileChannel channel;
  private boolean forced;
  private boolean renamed;
  private boolean kept;

  private OutputFile(Path target, Path temporary, FileChannel channel) {
    this.target = target;
    this.temporary = temporary;
    this.channel = channel;
  }

  /**
   * Starts a file.
   *
   * @throws GatunException when the directory is not there or not writable, or the target is a
   *     directory
   */
  public static OutputFile create(Path target) {
    if (Files.isDirectory(target)) {
      throw new GatunException(
          target + ": found a directory, expected the path of a file to write");
    }
    Path name = target.getFileName();
    if (name == null) {
      throw new GatunException(
          target + ": found no file name, expected the path of a file to write");
    }
    // Another run may be writing the same file: the last one to end wins.
    String suffix = Long.toUnsignedString(ThreadLocalRandom.current().nextLong(), 36);
    Path temporary = target.resolveSibling("." + name + "." + suffix + Leftovers.SUFFIX);
    try {
      Leftovers.delete(target);
      return new OutputFile(target, temporary, Leftovers.create(temporary));
    } catch (IOException e) {
      throw failed(target, e);
    }
  }

  /**
   * Starts a file, or goes on with one: its temporary name is the same every time, and what a run
   * that was killed has written is there. The caller sees to it that no two runs do so at once.
   *
   * @param temporary in the target's directory
   * @throws GatunException when it cannot be written
   */
  public static OutputFile resume(Path target, Path temporary) {
    try {
      Leftovers.delete(target);
      FileChannel channel =
          FileChannel.open(
              temporary,
              StandardOpenOption.CREATE,
              StandardOpenOption.READ,
              StandardOpenOption.WRITE);
      return new OutputFile(target, temporary, channel);
    } catch (IOException e) {
      throw failed(target, e);
    }
  }

  /** Where the file will be. */
  public Path target() {
    return target;
  }

  /** Writes bytes at a position: native memory, a mapped file or an array of any type. */
  public void write(long position, MemorySegment data) {
    try {
      if (data.heapBase().isPresent()) {
        writeArray(position, data);
        return;
      }
      for (long done = 0; done < data.byteSize(); ) {
        long length = Math.min(CHUNK, data.byteSize() - done);
        done += write(position + done, data.asSlice(done, length).asByteBuffer());
      }
    } catch (IOException e) {
      throw new OutputException(target, e);
    }
  }

  /** In pieces through native memory: there are no byte buffers over arrays of wider types. */
  private void writeArray(long position, MemorySegment data) throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(Math.max(1, Math.min(data.byteSize(), ARRAY_CHUNK)));
      for (long done = 0; done < data.byteSize(); ) {
        long length = Math.min(ARRAY_CHUNK, data.byteSize() - done);
        MemorySegment.copy(data, done, buffer, 0, length);
        done += write(position + done, buffer.asSlice(0, length).asByteBuffer());
      }
    }
  }

  /**
   * Copies bytes of another file without taking them into the process. Several threads may do so,
   * each with a channel of its own.
   *
   * @param from its position is moved
   */
  public void transfer(long position, FileChannel from, long fromPosition, long length) {
    try {
      extend(position + length);
      for (long done = 0; done < length; ) {
        from.position(fromPosition + done);
        long count = channel.transferFrom(from, position + done, length - done);
        if (count <= 0) {
          throw new IOException("the file that is copied was cut short");
        }
        done += count;
      }
    } catch (IOException e) {
      throw new OutputException(target, e);
    }
  }

  /** Nothing is copied to behind a file's end. */
  private synchronized void extend(long size) throws IOException {
    if (size > 0 && channel.size() < size) {
      channel.write(ByteBuffer.allocate(1), size - 1);
    }
  }

  /** All of a buffer; returns how much that is. */
  private int write(long position, ByteBuffer buffer) throws IOException {
    while (buffer.hasRemaining()) {
      channel.write(buffer, position + buffer.position());
    }
    return buffer.position();
  }

  /**
   * Whether the file holds so many bytes at a position that pass a check.
   *
   * @param check given all of them; they are valid during the call only
   */
  boolean find(long position, long length, Predicate<MemorySegment> check) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment bytes = arena.allocate(Math.max(1, length)).asSlice(0, length);
      ByteBuffer buffer = bytes.asByteBuffer();
      while (buffer.hasRemaining()) {
        if (channel.read(buffer, position + buffer.position()) <= 0) {
          return false;
        }
      }
      return check.test(bytes);
    } catch (IOException e) {
      throw failed(target, e);
    }
  }

  /** Cuts off what lies behind so many bytes. */
  void truncate(long size) {
    try {
      channel.truncate(size);
    } catch (IOException e) {
      throw new OutputException(target, e);
    }
  }

  /** Brings what was written so far to disk; several threads may go on writing. */
  public void flush() {
    try {
      channel.force(false);
    } catch (IOException e) {
      throw new OutputException(target, e);
    }
  }

  /** Takes one piece of what is read back. */
  @FunctionalInterface
  public interface PieceConsumer {
    /** A piece that begins {@code offset} bytes after the first; valid during the call only. */
    void accept(long offset, MemorySegment piece);
  }

  /** Reads back what was written, in pieces. */
  public void read(long position, long length, PieceConsumer consumer) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment buffer = arena.allocate(Math.max(1, Math.min(length, READ_CHUNK)));
      for (long done = 0; done < length; ) {
        ByteBuffer bytes = buffer.asSlice(0, Math.min(READ_CHUNK, length - done)).asByteBuffer();
        int count = channel.read(bytes, position + done);
        if (count <= 0) {
          throw new IOException("the temporary file was cut short");
        }
        consumer.accept(done, buffer.asSlice(0, count));
        done += count;
      }
    } catch (IOException e) {
      throw failed(target, e);
    }
  }

  /** Writes everything to disk, so that {@link #commit()} has only the rename left to do. */
  public void force() {
    try {
      channel.force(true);
      forced = true;
    } catch (IOException e) {
      throw new OutputException(target, e);
    }
  }

  /** Forces the file to disk and gives it its name, in place of what was there. */
  public void commit() {
    if (!forced) {
      force();
    }
    try {
      try {
        Files.move(temporary, target, StandardCopyOption.ATOMIC_MOVE);
      } catch (AtomicMoveNotSupportedException e) {
        Files.move(temporary, target, StandardCopyOption.REPLACE_EXISTING);
      }
      renamed = true;
      Leftovers.forget(temporary);
      channel.close(); // and with it the lock that says whose the temporary file was
    } catch (IOException e) {
      throw failed(target, e);
    }
  }

  /** Leaves the temporary file to a later {@link #resume}. */
  void keep() {
    kept = true;
  }

  /** Deletes the temporary file unless it was committed or is kept. A second call does nothing. */
  @Override
  public void close() {
    if (renamed) {
      return;
    }
    try {
      channel.close();
      if (kept) {
        return;
      }
      Files.deleteIfExists(temporary);
      Leftovers.forget(temporary);
    } catch (IOException e) {
      throw failed(temporary, e);
    }
  }

  /** What an output file's error is told as: one line that names the file and the reason. */
  public static GatunException failed(Path target, IOException e) {
    if (e instanceof NoSuchFileException) {
      return new GatunException(target + ": cannot be written (no such directory)", e);
    }
    String why =
        e instanceof FileSystemException f && f.getReason() != null
            ? f.getReason()
            : e.getMessage();
    if (e instanceof java.nio.file.AccessDeniedException) {
      why = "permission denied";
    }
    return new GatunException(target + ": cannot be written (" + why + ")", e);
  }
}
