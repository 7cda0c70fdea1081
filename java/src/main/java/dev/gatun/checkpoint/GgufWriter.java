package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import java.io.ByteArrayOutputStream;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Map;

/**
 * Writes a GGUF file of version 3 as ggml does: metadata and tensors in the order in which they are
 * given, every tensor padded with zeros to the alignment that {@code general.alignment} says, else
 * 32.
 */
public final class GgufWriter extends TensorFileWriter {
  private static final int VERSION = 3;
  private static final int MOST_DIMENSIONS = 4;

  private GgufWriter(OutputFile file) {
    super(file);
  }

  /**
   * Starts a file.
   *
   * @throws GatunException when it cannot be written, two entries have the same name, or one has a
   *     name, type or shape that GGUF cannot hold
   */
  public static GgufWriter create(
      Path target, Collection<SafetensorsWriter.Entry> entries, Map<String, GgufValue> values) {
    return create(OutputFile.create(target), entries, values);
  }

  /**
   * Starts what a file holds.
   *
   * @param file closed with the writer, or by an exception
   */
  static GgufWriter create(
      OutputFile file, Collection<SafetensorsWriter.Entry> entries, Map<String, GgufValue> values) {
    GgufWriter writer = new GgufWriter(file);
    boolean done = false;
    try {
      writer.start(entries, values);
      done = true;
      return writer;
    } finally {
      if (!done) {
        file.close();
      }
    }
  }

  private void start(Collection<SafetensorsWriter.Entry> entries, Map<String, GgufValue> values) {
    GgufValue stored = values.get(GgufFile.ALIGNMENT);
    long alignment = stored == null ? GgufFile.DEFAULT_ALIGNMENT : stored.whole().orElse(0);
    if (Long.bitCount(alignment) != 1) {
      throw Problem.file(target(), GgufFile.ALIGNMENT + " " + alignment, "a power of 2");
    }
    byte[] head = head(target(), entries, values, alignment);
    writeAt(0, head);
    long position = align(head.length, alignment);
    writeAt(head.length, new byte[(int) (position - head.length)]);
    for (SafetensorsWriter.Entry entry : entries) {
      long end = Math.addExact(position, entry.byteSize());
      place(entry.name(), position, entry.byteSize());
      position = align(end, alignment);
      writeAt(end, new byte[(int) (position - end)]);
    }
  }

  private static long align(long position, long alignment) {
    return Math.addExact(position, alignment - 1) & -alignment;
  }

  private static byte[] head(
      Path target,
      Collection<SafetensorsWriter.Entry> entries,
      Map<String, GgufValue> values,
      long alignment) {
    Head head = new Head();
    head.u32(GgufFile.MAGIC);
    head.u32(VERSION);
    head.u64(entries.size());
    head.u64(values.size());
    values.forEach(head::pair);
    long offset = 0;
    for (SafetensorsWriter.Entry entry : entries) {
      check(target, entry);
      head.string(entry.name());
      // A scalar is one element: ggml has no tensor without dimensions.
      List<Long> shape = entry.shape().isEmpty() ? List.of(1L) : entry.shape();
      head.u32(shape.size());
      shape.reversed().forEach(head::u64);
      head.u32(GgufTypes.id(entry.dtype()).orElseThrow());
      head.u64(offset);
      offset = align(Math.addExact(offset, entry.byteSize()), alignment);
    }
    return head.bytes.toByteArray();
  }

  private static void check(Path target, SafetensorsWriter.Entry entry) {
    int length = entry.name().getBytes(StandardCharsets.UTF_8).length;
    if (length > GgufHeader.LONGEST_NAME) {
      throw Problem.tensor(
          target,
          entry.name(),
          "a name of " + length + " bytes",
          "at most " + GgufHeader.LONGEST_NAME + ", which is ggml's limit");
    }
    if (GgufTypes.id(entry.dtype()).isEmpty()) {
      throw Problem.tensor(target, entry.name(), entry.dtype().name(), "a type that GGUF has");
    }
    if (entry.shape().size() > MOST_DIMENSIONS) {
      throw Problem.tensor(
          target,
          entry.name(),
          "shape " + entry.shape(),
          "at most " + MOST_DIMENSIONS + " dimensions");
    }
  }

  /** The bytes before the data, little-endian. */
  private static final class Head {
    final ByteArrayOutputStream bytes = new ByteArrayOutputStream();

    void u32(int value) {
      bytes.writeBytes(ByteBuffer.allocate(4).order(ByteOrder.LITTLE_ENDIAN).putInt(value).array());
    }

    void u64(long value) {
      bytes.writeBytes(
          ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(value).array());
    }

    void string(String text) {
      byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
      u64(utf8.length);
      bytes.writeBytes(utf8);
    }

    void pair(String key, GgufValue value) {
      string(key);
      u32(value.type().id());
      if (value.type() == GgufValue.Type.ARRAY) {
        u32(value.element().id());
        u64(value.count());
      }
      bytes.writeBytes(value.data().toArray(ValueLayout.JAVA_BYTE));
    }
  }
}
