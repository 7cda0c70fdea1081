package dev.gatun.quantize;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.GatunException;
import dev.gatun.checkpoint.OutputException;
import dev.gatun.checkpoint.OutputFile;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * What a run has done so far: a hidden file beside the output with one line of JSON for each layer,
 * written after the layer's bytes, with their checksums. A run that is killed leaves it, and the
 * next one for the same job goes on after it. A run that ends, well or with an error, leaves
 * nothing, unless it was the disk that failed. It is locked, so that no two runs write one file.
 * Safe for any number of threads.
 */
final class Journal implements AutoCloseable {
  private static final ObjectMapper JSON = new ObjectMapper();
  private static final Set<StandardOpenOption> OPTIONS =
      Set.of(StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE);

  private final Path target;
  private final Path file;
  private final FileChannel channel;
  private final boolean lasting;
  private final List<ObjectNode> found = new ArrayList<>();
  private long size;
  private int layers;
  private boolean kept;

  private Journal(Path target, Path file, FileChannel channel, boolean lasting) {
    this.target = target;
    this.file = file;
    this.channel = channel;
    this.lasting = lasting;
  }

  /**
   * Opens the journal of an output.
   *
   * @param job describes the run: what another job has left is thrown away
   * @param lasting whether a run that the disk ends is worth going on with
   * @throws GatunException when the directory cannot be written, or another process is writing the
   *     same output
   */
  static Journal open(Path target, String job, boolean lasting) {
    if (target.getFileName() == null || Files.isDirectory(target)) {
      throw new GatunException(
          target + ": found a directory, expected the path of a file to write");
    }
    Path file = beside(target, ".part.json");
    FileChannel channel = null;
    boolean done = false;
    try {
      channel = FileChannel.open(file, OPTIONS);
      lock(target, channel);
      Journal journal = new Journal(target, file, channel, lasting);
      journal.restore(job);
      done = true;
      return journal;
    } catch (IOException e) {
      throw OutputFile.failed(target, e);
    } finally {
      if (!done) {
        closeQuietly(channel);
      }
    }
  }

  /** A hidden file beside an output. */
  static Path beside(Path target, String suffix) {
    return target.resolveSibling("." + target.getFileName() + suffix);
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

  static void closeQuietly(@Nullable FileChannel channel) {
    try {
      if (channel != null) {
        channel.close();
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The lines of an interrupted run of the same job, in its order. */
  List<ObjectNode> found() {
    return List.copyOf(found);
  }

  /** A line to be filled in. */
  static ObjectNode line() {
    return JSON.createObjectNode();
  }

  /** Adds a layer's line. */
  synchronized void append(ObjectNode line) {
    write(line);
    layers++;
  }

  private void write(ObjectNode line) {
    ByteBuffer bytes = ByteBuffer.wrap((line + "\n").getBytes(StandardCharsets.UTF_8));
    try {
      while (bytes.hasRemaining()) {
        size += channel.write(bytes, size);
      }
    } catch (IOException e) {
      throw new OutputException(target, e);
    }
  }

  /** Reads up to the first line that is not whole; of another job, none. */
  private void restore(String job) throws IOException {
    ObjectNode head = line().put("job", job);
    byte[] text = new byte[Math.toIntExact(channel.size())];
    ByteBuffer buffer = ByteBuffer.wrap(text);
    int count = 0;
    while (buffer.hasRemaining() && count >= 0) {
      count = channel.read(buffer, buffer.position());
    }
    int start = 0;
    boolean same = false;
    for (int end = 0; end < text.length; end++) {
      if (text[end] != '\n') {
        continue;
      }
      String line = new String(text, start, end - start, StandardCharsets.UTF_8);
      if (start == 0) {
        same = line.equals(head.toString());
      }
      if (!same || (start > 0 && !restoreLine(line))) {
        break;
      }
      start = end + 1;
    }
    size = start;
    channel.truncate(size);
    if (!same) {
      write(head);
    }
  }

  private boolean restoreLine(String line) {
    try {
      found.add((ObjectNode) JSON.readTree(line));
      return true;
    } catch (IOException | ClassCastException e) {
      return false;
    }
  }

  /** Puts a report into its layer's line. */
  static void put(ObjectNode line, LayerReport report) {
    line.put("layer", report.layer());
    line.put("format", report.format());
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
  }

  /** The report of a line, which throws some {@link RuntimeException} when there is none. */
  static LayerReport report(ObjectNode line) {
    JsonNode numbers = line.required("report");
    return new LayerReport(
        line.required("layer").textValue(),
        numbers.required("rows").longValue(),
        numbers.required("columns").longValue(),
        numbers.required("before").longValue(),
        numbers.required("after").longValue(),
        Double.parseDouble(numbers.required("relative").textValue()),
        Double.parseDouble(numbers.required("snr").textValue()),
        Double.parseDouble(numbers.required("largest").textValue()),
        LayerReport.How.valueOf(numbers.required("how").textValue()),
        line.required("format").textValue());
  }

  static void put(ArrayNode array, List<Long> numbers) {
    numbers.forEach(array::add);
  }

  static List<Long> longs(JsonNode array) {
    List<Long> values = new ArrayList<>();
    array.forEach(value -> values.add(value.longValue()));
    return values;
  }

  /** Leaves the file to a later run if that has something to go on after; says so. */
  synchronized boolean keep() {
    kept = lasting && layers + found.size() > 0;
    return kept;
  }

  /** Deletes the file unless it is kept. */
  @Override
  public void close() {
    try {
      if (!kept) {
        Files.deleteIfExists(file);
      }
      channel.close();
    } catch (IOException e) {
      throw OutputFile.failed(target, e);
    }
  }
}
