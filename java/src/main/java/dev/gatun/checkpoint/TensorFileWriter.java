package dev.gatun.checkpoint;

import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Predicate;

/**
 * Writes a file tensor by tensor without ever holding it in memory: the tensors are declared first,
 * then each one's bytes are written in any order, in pieces if need be. The file appears under its
 * name only when it is whole.
 */
public abstract sealed class TensorFileWriter implements AutoCloseable
    permits SafetensorsWriter, GgufWriter {
  /** Where a tensor lies, and how much of it is written. */
  private static final class Place {
    final long position;
    final long size;
    final AtomicLong written = new AtomicLong();

    Place(long position, long size) {
      this.position = position;
      this.size = size;
    }
  }

  private final OutputFile file;
  private final Map<String, Place> places = new HashMap<>();
  private long end;

  TensorFileWriter(OutputFile file) {
    this.file = file;
  }

  /** Declares where a tensor will lie. */
  final void place(String name, long position, long size) {
    end = Math.max(end, position + size);
    if (places.put(name, new Place(position, size)) != null) {
      throw Problem.tensor(target(), name, "two tensors of this name", "one");
    }
  }

  /** Writes what is not a tensor's: the head, padding. */
  final void writeAt(long position, byte[] bytes) {
    end = Math.max(end, position + bytes.length);
    file.write(position, MemorySegment.ofArray(bytes));
  }

  /** Where the file will be. */
  public final Path target() {
    return file.target();
  }

  /** Writes a whole tensor. */
  public final void write(String name, MemorySegment data) {
    write(name, 0, data);
  }

  /**
   * Writes a piece of a tensor; every byte is written once. Any number of threads may do so.
   *
   * @param offset of the piece, in bytes
   * @throws IndexOutOfBoundsException when the piece reaches past the tensor
   */
  public final void write(String name, long offset, MemorySegment data) {
    Place place = place(name);
    if (offset < 0 || data.byteSize() > place.size - offset) {
      throw new IndexOutOfBoundsException(
          name + ": bytes " + offset + " + " + data.byteSize() + " of " + place.size);
    }
    file.write(place.position + offset, data);
    place.written.addAndGet(data.byteSize());
  }

  private Place place(String name) {
    Place place = places.get(name);
    if (place == null) {
      throw new IllegalArgumentException(name + " was not declared");
    }
    return place;
  }

  /**
   * Looks at a piece of a tensor that an earlier run has written.
   *
   * @param check of its bytes, which are valid during the call only
   * @return whether the file is long enough to hold the piece and the check passed
   */
  public final boolean find(String name, long offset, long length, Predicate<MemorySegment> check) {
    Place place = place(name);
    if (offset < 0 || length < 0 || length > place.size - offset) {
      throw new IndexOutOfBoundsException(name + ": " + offset + " + " + length);
    }
    return file.find(place.position + offset, length, check);
  }

  /** Takes a tensor for written: an earlier run has done it. */
  public final void adopt(String name) {
    Place place = place(name);
    place.written.set(place.size);
  }

  /**
   * Copies a whole tensor from another file. Several threads may do so, each with a channel of its
   * own.
   *
   * @param from its position is moved
   * @param position of the tensor there
   */
  public final void transfer(String name, FileChannel from, long position) {
    Place place = place(name);
    file.transfer(place.position, from, position, place.size);
    place.written.addAndGet(place.size);
  }

  /** Brings what was written so far to disk; several threads may go on writing. */
  public final void flush() {
    file.flush();
  }

  /**
   * Forces the file to disk; {@link #commit()} then only renames it.
   *
   * @throws IllegalStateException when a tensor is not fully written
   */
  public final void force() {
    places.forEach(
        (name, place) -> {
          if (place.written.get() != place.size) {
            throw new IllegalStateException(
                name + ": " + place.written + " of " + place.size + " bytes written");
          }
        });
    file.truncate(end); // an earlier run may have left more
    file.force();
  }

  /** Forces the file to disk and gives it its name. */
  public final void commit() {
    force();
    file.commit();
  }

  /** Gives a forced file its name. */
  public final void rename() {
    file.commit();
  }

  /** Leaves what was written to a later run that goes on with it. */
  public final void keep() {
    file.keep();
  }

  /** Deletes what was written unless it was committed or is kept. */
  @Override
  public final void close() {
    file.close();
  }
}
