package dev.gatun.quantize;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.OutputException;
import dev.gatun.checkpoint.OutputFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.checkpoint.TensorFileWriter;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.zip.CRC32C;
import org.jspecify.annotations.Nullable;

/**
 * Keeps layers on disk whose tensors' sizes are known only when they are quantized, until every
 * size is known and the checkpoint can be laid out: the container's order puts all tensors of one
 * type together. A hidden file beside the output; the journal says what is in it. Safe for any
 * number of threads.
 */
final class Spool implements AutoCloseable {
  private static final long CHUNK = 1L << 26;
  private static final long READ_CHUNK = 1L << 20;

  /** A layer that is on disk. */
  record Layer(LayerWriter.Written written, LayerReport report, List<Kept> tensors) {}

  /** One tensor of it. */
  record Kept(SafetensorsWriter.Entry entry, long position, long checksum) {}

  private final Path target;
  private final Path file;
  private final Journal journal;
  private final Map<String, Layer> layers = new LinkedHashMap<>();
  private @Nullable FileChannel channel;
  private long size;
  private boolean kept;

  /** The spool of an output, with what an interrupted run has left that the journal tells of. */
  Spool(Path target, Journal journal) {
    this.target = target;
    this.file = Journal.beside(target, ".part.layers");
    this.journal = journal;
    boolean done = false;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment scratch = arena.allocate(READ_CHUNK);
      for (ObjectNode line : journal.found()) {
        if (line.has("tensors")) {
          restore(line, scratch);
        }
      }
      if (channel != null) {
        channel.truncate(size);
      }
      done = true;
    } catch (IOException e) {
      throw OutputFile.failed(target, e);
    } finally {
      if (!done) {
        Journal.closeQuietly(channel);
      }
    }
  }

  private synchronized FileChannel channel() throws IOException {
    FileChannel open = channel;
    if (open == null) {
      open =
          FileChannel.open(
              file, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
      channel = open;
    }
    return open;
  }

  /** The layers that are on disk, by plain name. */
  synchronized Map<String, Layer> layers() {
    return new LinkedHashMap<>(layers);
  }

  /** Writes a layer, then its line. */
  void add(LayerWriter.Written written, List<Tensor> tensors, LayerReport report) {
    long bytes = tensors.stream().mapToLong(t -> t.data().byteSize()).sum();
    long position;
    synchronized (this) {
      position = size;
      size += bytes;
    }
    List<Kept> kept = new ArrayList<>();
    try {
      for (Tensor tensor : tensors) {
        CRC32C checksum = new CRC32C();
        write(position, tensor.data(), checksum);
        kept.add(new Kept(SafetensorsWriter.Entry.of(tensor), position, checksum.getValue()));
        position += tensor.data().byteSize();
      }
    } catch (IOException e) {
      throw new OutputException(target, e);
    }
    Layer layer = new Layer(written, report, kept);
    journal.append(line(layer));
    synchronized (this) {
      layers.put(written.layer(), layer);
    }
  }

  private void write(long position, MemorySegment bytes, CRC32C checksum) throws IOException {
    FileChannel data = channel();
    for (long done = 0; done < bytes.byteSize(); ) {
      long length = Math.min(CHUNK, bytes.byteSize() - done);
      ByteBuffer buffer = bytes.asSlice(done, length).asByteBuffer();
      checksum.update(buffer.duplicate());
      while (buffer.hasRemaining()) {
        done += data.write(buffer, position + done);
      }
    }
  }

  /** Copies the tensors of a layer to where they belong; any number of threads may do so. */
  void writeTo(Layer layer, TensorFileWriter writer) {
    try (FileChannel from = FileChannel.open(file, StandardOpenOption.READ)) {
      for (Kept tensor : layer.tensors) {
        writer.transfer(tensor.entry.name(), from, tensor.position);
      }
    } catch (IOException e) {
      throw OutputFile.failed(target, e);
    }
  }

  /** The checksum of a tensor as it is on disk; -1 when the file ends before it. */
  private long checksum(Kept tensor, MemorySegment buffer) throws IOException {
    CRC32C checksum = new CRC32C();
    FileChannel data = channel();
    long length = tensor.entry.byteSize();
    for (long done = 0; done < length; ) {
      ByteBuffer bytes =
          buffer.asSlice(0, Math.min(buffer.byteSize(), length - done)).asByteBuffer();
      int count = data.read(bytes, tensor.position + done);
      if (count <= 0) {
        return -1;
      }
      checksum.update(bytes.flip());
      done += count;
    }
    return checksum.getValue();
  }

  /** A layer whose bytes are not those of its line is made again. */
  private void restore(ObjectNode line, MemorySegment scratch) throws IOException {
    Layer layer;
    try {
      layer = layer(line);
    } catch (RuntimeException e) {
      return; // not a line that was written whole
    }
    long end = size;
    for (Kept tensor : layer.tensors) {
      if (checksum(tensor, scratch) != tensor.checksum) {
        return; // the system went down before the bytes were on disk
      }
      end = Math.max(end, tensor.position + tensor.entry.byteSize());
    }
    size = end;
    layers.put(layer.written.layer(), layer);
  }

  private static ObjectNode line(Layer layer) {
    ObjectNode line = Journal.line();
    Journal.put(line, layer.report);
    line.put("dtype", layer.written.dtype().name());
    Journal.put(line.putArray("shape"), layer.written.shape());
    layer.written.activations().ifPresent(type -> line.put("activations", type.name()));
    ArrayNode tensors = line.putArray("tensors");
    for (Kept kept : layer.tensors) {
      ObjectNode tensor = tensors.addObject();
      tensor.put("name", kept.entry.name());
      tensor.put("dtype", kept.entry.dtype().name());
      Journal.put(tensor.putArray("shape"), kept.entry.shape());
      tensor.put("position", kept.position);
      tensor.put("checksum", kept.checksum);
    }
    return line;
  }

  private static Layer layer(ObjectNode line) {
    List<Kept> kept = new ArrayList<>();
    line.required("tensors")
        .forEach(
            t ->
                kept.add(
                    new Kept(
                        new SafetensorsWriter.Entry(
                            t.required("name").textValue(),
                            DType.valueOf(t.required("dtype").textValue()),
                            Journal.longs(t.required("shape"))),
                        t.required("position").longValue(),
                        t.required("checksum").longValue())));
    LayerReport report = Journal.report(line);
    LayerWriter.Written written =
        new LayerWriter.Written(
            report.layer(),
            report.format(),
            DType.valueOf(line.required("dtype").textValue()),
            Journal.longs(line.required("shape")),
            kept.stream().map(Kept::entry).toList(),
            Optional.ofNullable(line.get("activations")).map(t -> Encoding.valueOf(t.asText())));
    return new Layer(written, report, kept);
  }

  /** Leaves the file to a later run. */
  void keep() {
    kept = true;
  }

  /** Deletes the file unless it is kept. */
  @Override
  public void close() {
    try {
      if (!kept) {
        Files.deleteIfExists(file);
      }
      Journal.closeQuietly(channel);
    } catch (IOException e) {
      throw OutputFile.failed(target, e);
    }
  }
}
