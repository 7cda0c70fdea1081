package dev.gatun.quantize;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.checkpoint.TensorFileWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.zip.CRC32C;
import org.jspecify.annotations.Nullable;

/**
 * Keeps quantized layers on disk until every size is known and the checkpoint can be laid out: the
 * container's order puts all tensors of one type together.
 *
 * <p>Two hidden files beside the output: the tensors' bytes, and a journal with one line of JSON a
 * layer, written after its bytes, with their checksum. A run that is killed leaves them, and the
 * next one for the same job goes on after the last layer whose line and bytes are whole. A run that
 * ends, well or with an error, leaves nothing. Safe for any number of threads.
 */
final class Spool implements AutoCloseable {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final Set<StandardOpenOption> OPTIONS =
      Set.of(StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);
  private static final long CHUNK = 1L << 26;
  private static final long READ_CHUNK = 1L << 20;

  /** A layer that is on disk. */
  record Layer(LayerWriter.Written written, LayerReport report, List<Kept> tensors) {}

  /** One tensor of it. */
  record Kept(SafetensorsWriter.Entry entry, long position, long checksum) {}

  private final Path target;
  private final Path dataFile;
  private final Path journalFile;
  private final FileChannel data;
  private final FileChannel journal;
  private final Map<String, Layer> layers = new LinkedHashMap<>();
  private long size;
  private long journalSize;

  private Spool(
      Path target, Path dataFile, Path journalFile, FileChannel data, FileChannel journal) {
    this.target = target;
    this.dataFile = dataFile;
    this.journalFile = journalFile;
    this.data = data;
    this.journal = journal;
  }

  /**
   * Opens the spool of an output, with what an interrupted run of the same job has left.
   *
   * @param job describes the run: a spool of another job is thrown away
   * @throws GatunException when the directory cannot be written, or another process is writing the
   *     same output
   */
  static Spool open(Path target, String job) {
    Path name = target.getFileName();
    if (name == null || Files.isDirectory(target)) {
      throw new GatunException(
          target + ": found a directory, expected the path of a file to write");
    }
    Path dataFile = target.resolveSibling("." + name + ".part");
    Path journalFile = target.resolveSibling("." + name + ".part.json");
    FileChannel data = null;
    FileChannel journal = null;
    boolean done = false;
    try {
      data = FileChannel.open(dataFile, OPTIONS);
      lock(target, data);
      journal = FileChannel.open(journalFile, OPTIONS);
      Spool spool = new Spool(target, dataFile, journalFile, data, journal);
      spool.restore(job);
      done = true;
      return spool;
    } catch (IOException e) {
      throw failed(target, e);
    } finally {
      if (!done) {
        closeQuietly(data);
        closeQuietly(journal);
      }
    }
  }

  /** The lock ends with the process, however it ends. */
  private static void lock(Path target, FileChannel channel) throws IOException {
    @Nullable FileLock lock;
    try {
      lock = channel.tryLock();
    } catch (OverlappingFileLockException e) {
      lock = null;
    }
    if (lock == null) {
      throw new GatunException(
          target + ": found another run that is writing this file, expected one at a time");
    }
  }

  private static void closeQuietly(@Nullable FileChannel channel) {
    try {
      if (channel != null) {
        channel.close();
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
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
      record(new Layer(written, report, kept));
    } catch (IOException e) {
      throw failed(target, e);
    }
  }

  private synchronized void record(Layer layer) throws IOException {
    layers.put(layer.written.layer(), layer);
    append(line(layer));
  }

  private void append(ObjectNode line) throws IOException {
    ByteBuffer bytes = ByteBuffer.wrap((line + "\n").getBytes(StandardCharsets.UTF_8));
    while (bytes.hasRemaining()) {
      journalSize += journal.write(bytes, journalSize);
    }
  }

  private void write(long position, MemorySegment bytes, CRC32C checksum) throws IOException {
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
    try (FileChannel from = FileChannel.open(dataFile, StandardOpenOption.READ)) {
      for (Kept tensor : layer.tensors) {
        writer.transfer(tensor.entry.name(), from, tensor.position);
      }
    } catch (IOException e) {
      throw failed(target, e);
    }
  }

  @FunctionalInterface
  private interface PieceConsumer {
    void accept(long offset, MemorySegment piece);
  }

  private void read(Kept tensor, MemorySegment buffer, PieceConsumer consumer) throws IOException {
    long length = tensor.entry.byteSize();
    for (long done = 0; done < length; ) {
      ByteBuffer bytes =
          buffer.asSlice(0, Math.min(buffer.byteSize(), length - done)).asByteBuffer();
      int count = data.read(bytes, tensor.position + done);
      if (count <= 0) {
        throw new IOException("the file of finished layers was cut short");
      }
      consumer.accept(done, buffer.asSlice(0, count));
      done += count;
    }
  }

  /** Reads the journal up to the first line that is not whole or whose bytes are not there. */
  private void restore(String job) throws IOException {
    ObjectNode head = JSON.createObjectNode().put("job", job);
    byte[] text = new byte[Math.toIntExact(journal.size())];
    ByteBuffer buffer = ByteBuffer.wrap(text);
    int count = 0;
    while (buffer.hasRemaining() && count >= 0) {
      count = journal.read(buffer, buffer.position());
    }
    int start = 0;
    boolean first = true;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment scratch = arena.allocate(READ_CHUNK);
      for (int end = 0; end < text.length; end++) {
        if (text[end] != '\n') {
          continue;
        }
        String line = new String(text, start, end - start, StandardCharsets.UTF_8);
        if (first ? !line.equals(head.toString()) : !restoreLayer(line, scratch)) {
          break;
        }
        first = false;
        start = end + 1;
      }
    }
    journalSize = start;
    journal.truncate(journalSize);
    data.truncate(size);
    if (first) {
      append(head);
    }
  }

  private boolean restoreLayer(String line, MemorySegment scratch) throws IOException {
    Layer layer;
    try {
      layer = layer((ObjectNode) JSON.readTree(line));
    } catch (IOException | RuntimeException e) {
      return false; // not a line that was written whole
    }
    long end = size;
    for (Kept tensor : layer.tensors) {
      end = Math.max(end, tensor.position + tensor.entry.byteSize());
      CRC32C checksum = new CRC32C();
      if (tensor.position + tensor.entry.byteSize() > data.size()) {
        return false;
      }
      read(tensor, scratch, (offset, piece) -> checksum.update(piece.asByteBuffer()));
      if (checksum.getValue() != tensor.checksum) {
        return false; // the system went down before the bytes were on disk
      }
    }
    size = end;
    layers.put(layer.written.layer(), layer);
    return true;
  }

  private static ObjectNode line(Layer layer) {
    ObjectNode line = JSON.createObjectNode();
    line.put("layer", layer.written.layer());
    line.put("format", layer.written.format());
    line.put("dtype", layer.written.dtype().name());
    layer.written.shape().forEach(line.putArray("shape")::add);
    ArrayNode tensors = line.putArray("tensors");
    for (Kept kept : layer.tensors) {
      ObjectNode tensor = tensors.addObject();
      tensor.put("name", kept.entry.name());
      tensor.put("dtype", kept.entry.dtype().name());
      kept.entry.shape().forEach(tensor.putArray("shape")::add);
      tensor.put("position", kept.position);
      tensor.put("checksum", kept.checksum);
    }
    LayerReport report = layer.report;
    ObjectNode numbers = line.putObject("report");
    numbers.put("rows", report.rows());
    numbers.put("columns", report.columns());
    numbers.put("before", report.bytesBefore());
    numbers.put("after", report.bytesAfter());
    // as text: JSON has no infinities
    numbers.put("relative", Double.toString(report.relativeError()));
    numbers.put("snr", Double.toString(report.snrDb()));
    numbers.put("largest", Double.toString(report.maxError()));
    numbers.put("how", report.how().name());
    return line;
  }

  private static Layer layer(ObjectNode line) {
    String name = line.required("layer").textValue();
    String format = line.required("format").textValue();
    List<Kept> kept = new ArrayList<>();
    line.required("tensors")
        .forEach(
            t ->
                kept.add(
                    new Kept(
                        new SafetensorsWriter.Entry(
                            t.required("name").textValue(),
                            DType.valueOf(t.required("dtype").textValue()),
                            longs(t.required("shape"))),
                        t.required("position").longValue(),
                        t.required("checksum").longValue())));
    var numbers = line.required("report");
    LayerReport report =
        new LayerReport(
            name,
            numbers.required("rows").longValue(),
            numbers.required("columns").longValue(),
            numbers.required("before").longValue(),
            numbers.required("after").longValue(),
            Double.parseDouble(numbers.required("relative").textValue()),
            Double.parseDouble(numbers.required("snr").textValue()),
            Double.parseDouble(numbers.required("largest").textValue()),
            LayerReport.How.valueOf(numbers.required("how").textValue()),
            format);
    LayerWriter.Written written =
        new LayerWriter.Written(
            name,
            format,
            DType.valueOf(line.required("dtype").textValue()),
            longs(line.required("shape")),
            kept.stream().map(Kept::entry).toList());
    return new Layer(written, report, kept);
  }

  private static List<Long> longs(com.fasterxml.jackson.databind.JsonNode array) {
    List<Long> values = new ArrayList<>();
    array.forEach(value -> values.add(value.longValue()));
    return values;
  }

  private static GatunException failed(Path target, IOException e) {
    return dev.gatun.checkpoint.OutputFile.failed(target, e);
  }

  /** Deletes both files. */
  @Override
  public void close() {
    try {
      // The journal first: bytes without a line are worth nothing, a line without bytes is checked.
      Files.deleteIfExists(journalFile);
      Files.deleteIfExists(dataFile);
      journal.close();
      data.close();
    } catch (IOException e) {
      throw failed(target, e);
    }
  }
}
