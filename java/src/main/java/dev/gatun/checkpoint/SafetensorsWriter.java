package dev.gatun.checkpoint;

import com.fasterxml.jackson.core.JsonGenerator;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Writes a safetensors file tensor by tensor without ever holding it in memory: the entries are
 * declared first, then each tensor's bytes are written in any order, in pieces if need be. The file
 * is laid out as the official writer does it: widest types first, then by name, the header padded
 * with spaces to a multiple of 8. It appears under its name only when it is whole.
 */
public final class SafetensorsWriter implements AutoCloseable {
  /** A tensor to be written. */
  public record Entry(String name, DType dtype, List<Long> shape) {
    /** The entry of a tensor that is written as it is. */
    public static Entry of(Tensor tensor) {
      return new Entry(tensor.name(), tensor.dtype(), tensor.shape());
    }

    /** Bytes of the tensor; the bits of all its elements must be a multiple of 8. */
    public long byteSize() {
      try {
        return dtype.byteSize(shape);
      } catch (ArithmeticException e) {
        throw new GatunException(
            "tensor "
                + Problem.quote(name)
                + ": found "
                + dtype
                + " "
                + shape
                + ", expected whole bytes below 2^63 and rows of whole blocks",
            e);
      }
    }
  }

  /** Where a tensor lies, and how much of it is written. */
  private static final class Place {
    final long position;
    final long size;
    long written;

    Place(long position, long size) {
      this.position = position;
      this.size = size;
    }
  }

  private final OutputFile file;
  private final Map<String, Place> places = new HashMap<>();

  private SafetensorsWriter(OutputFile file) {
    this.file = file;
  }

  /**
   * Starts a file.
   *
   * @throws GatunException when it cannot be written, or two entries have the same name
   */
  public static SafetensorsWriter create(
      Path target, Collection<Entry> entries, Map<String, String> metadata) {
    List<Entry> sorted = new ArrayList<>(entries);
    sorted.sort(
        Comparator.comparing(Entry::dtype)
            .reversed()
            .thenComparing(Entry::name, SafetensorsWriter::byUtf8));
    for (Entry entry : sorted) {
      if (entry.dtype().isBlock()) {
        throw Problem.tensor(target, entry.name(), entry.dtype() + " blocks", "a safetensors type");
      }
    }
    byte[] header = header(target, sorted, metadata);
    OutputFile file = OutputFile.create(target);
    SafetensorsWriter writer = new SafetensorsWriter(file);
    boolean done = false;
    try {
      long position = (long) Long.BYTES + header.length;
      for (Entry entry : sorted) {
        Place place = new Place(position, entry.byteSize());
        if (writer.places.put(entry.name(), place) != null) {
          throw Problem.tensor(target, entry.name(), "two tensors of this name", "one");
        }
        position = Math.addExact(position, place.size);
      }
      byte[] length =
          ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(header.length).array();
      file.write(0, MemorySegment.ofArray(length));
      file.write(Long.BYTES, MemorySegment.ofArray(header));
      done = true;
      return writer;
    } finally {
      if (!done) {
        file.close();
      }
    }
  }

  /** Writes a whole tensor. */
  public void write(String name, MemorySegment data) {
    write(name, 0, data);
  }

  /**
   * Writes a piece of a tensor; every byte is written once.
   *
   * @param offset of the piece, in bytes
   * @throws IndexOutOfBoundsException when the piece reaches past the tensor
   */
  public void write(String name, long offset, MemorySegment data) {
    Place place = places.get(name);
    if (place == null) {
      throw new IllegalArgumentException(name + " was not declared");
    }
    if (offset < 0 || data.byteSize() > place.size - offset) {
      throw new IndexOutOfBoundsException(
          name + ": bytes " + offset + " + " + data.byteSize() + " of " + place.size);
    }
    file.write(place.position + offset, data);
    place.written += data.byteSize();
  }

  /** Forces the file to disk; {@link #commit()} then only renames it. */
  public void force() {
    places.forEach(
        (name, place) -> {
          if (place.written != place.size) {
            throw new IllegalStateException(
                name + ": " + place.written + " of " + place.size + " bytes written");
          }
        });
    file.force();
  }

  /**
   * Forces the file to disk and gives it its name.
   *
   * @throws IllegalStateException when a tensor is not fully written
   */
  public void commit() {
    force();
    file.commit();
  }

  /** Gives a forced file its name. */
  public void rename() {
    file.commit();
  }

  /** Deletes what was written unless it was committed. */
  @Override
  public void close() {
    file.close();
  }

  /**
   * UTF-8's order is that of code points, which differs from {@link String#compareTo} beyond the
   * basic plane.
   */
  private static int byUtf8(String a, String b) {
    int[] left = a.codePoints().toArray();
    int[] right = b.codePoints().toArray();
    return java.util.Arrays.compare(left, right);
  }

  private static byte[] header(Path target, List<Entry> entries, Map<String, String> metadata) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try (JsonGenerator json = Json.MAPPER.getFactory().createGenerator(out)) {
      json.writeStartObject();
      if (!metadata.isEmpty()) {
        json.writeObjectFieldStart("__metadata__");
        for (Map.Entry<String, String> entry : metadata.entrySet()) {
          json.writeStringField(entry.getKey(), entry.getValue());
        }
        json.writeEndObject();
      }
      long position = 0;
      for (Entry entry : entries) {
        long end = Math.addExact(position, entry.byteSize());
        json.writeObjectFieldStart(entry.name());
        json.writeStringField("dtype", entry.dtype().name());
        json.writeFieldName("shape");
        json.writeArray(
            entry.shape().stream().mapToLong(Long::longValue).toArray(), 0, entry.shape().size());
        json.writeFieldName("data_offsets");
        json.writeArray(new long[] {position, end}, 0, 2);
        json.writeEndObject();
        position = end;
      }
      json.writeEndObject();
    } catch (ArithmeticException e) {
      throw new GatunException(
          target + ": found more than 2^63 bytes of tensors, expected a file that can be", e);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    while (out.size() % 8 != 0) {
      out.write(' ');
    }
    if (out.size() > Json.LARGEST_HEADER) {
      throw Problem.file(
          target, "a header of " + out.size() + " bytes", "at most " + Json.LARGEST_HEADER);
    }
    return out.toByteArray();
  }
}
