package dev.gatun.checkpoint;

import com.fasterxml.jackson.core.JsonGenerator;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import java.util.Map;

/**
 * Writes a safetensors file, laid out as the official writer does it: widest types first, then by
 * name, the header padded with spaces to a multiple of 8.
 */
public final class SafetensorsWriter extends TensorFileWriter {
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

  private SafetensorsWriter(OutputFile file) {
    super(file);
  }

  /**
   * Starts a file.
   *
   * @throws GatunException when it cannot be written, or two entries have the same name
   */
  public static SafetensorsWriter create(
      Path target, Collection<Entry> entries, Map<String, String> metadata) {
    return create(OutputFile.create(target), entries, metadata);
  }

  /**
   * Starts what a file holds.
   *
   * @param file closed with the writer, or by an exception
   * @throws GatunException when it cannot be written, or two entries have the same name
   */
  static SafetensorsWriter create(
      OutputFile file, Collection<Entry> entries, Map<String, String> metadata) {
    SafetensorsWriter writer = new SafetensorsWriter(file);
    boolean done = false;
    try {
      writer.start(entries, metadata);
      done = true;
      return writer;
    } finally {
      if (!done) {
        file.close();
      }
    }
  }

  private void start(Collection<Entry> entries, Map<String, String> metadata) {
    List<Entry> sorted = new ArrayList<>(entries);
    sorted.sort(
        Comparator.comparing(Entry::dtype)
            .reversed()
            .thenComparing(Entry::name, SafetensorsWriter::byUtf8));
    for (Entry entry : sorted) {
      if (entry.dtype().isBlock()) {
        throw Problem.tensor(
            target(), entry.name(), entry.dtype() + " blocks", "a safetensors type");
      }
    }
    byte[] header = header(target(), sorted, metadata);
    long position = (long) Long.BYTES + header.length;
    for (Entry entry : sorted) {
      place(entry.name(), position, entry.byteSize());
      position = Math.addExact(position, entry.byteSize());
    }
    writeAt(
        0, ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(header.length).array());
    writeAt(Long.BYTES, header);
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
