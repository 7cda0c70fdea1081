package dev.gatun.quantize;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.RowQuantizer;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.checkpoint.TensorFileWriter;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Deviation;
import dev.gatun.kernel.Scaling;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.CRC32C;
import org.jspecify.annotations.Nullable;

/**
 * A layer that is quantized some rows at a time and written straight to its place: its tensors'
 * sizes are known before its values are.
 */
final class RowLayer {
  /**
   * Numbers of a piece: few enough to stay in the cache from the first look at them to the
   * comparison with what became of them.
   */
  private static final long NUMBERS = 1 << 20;

  /** Bytes of a tensor that are on disk. */
  private record Kept(int tensor, long offset, long length, long checksum) {}

  private final LayerWork.Fresh item;
  private final RowQuantizer rows;
  private final Scaling scaling;
  private final LayerWriter.Written written;
  private final Encoding type;
  private final long n;
  private final long rowsAtOnce;
  private final Deviation[] deviations;
  private final List<List<Kept>> kept;
  private @Nullable LayerReport report;

  /**
   * @param scaling of all layers
   */
  RowLayer(LayerWork.Fresh item, RowQuantizer rows, Scaling scaling) {
    this(item, rows, scaling, NUMBERS);
  }

  /** With so many numbers a piece. */
  RowLayer(LayerWork.Fresh item, RowQuantizer rows, Scaling scaling, long numbers) {
    Tensor weight = item.weight();
    this.item = item;
    this.rows = rows;
    this.scaling = scaling.forLayer(item.layer());
    this.written =
        new LayerWriter.Written(
            item.layer(), item.format(), weight.dtype(), weight.shape(), rows.entries());
    this.type = weight.dtype().encoding().orElseThrow();
    this.n = weight.shape().get(0);
    long step = rows.step();
    this.rowsAtOnce = step * Math.max(1, numbers / Math.max(1, step * columns()));
    int pieces = Math.toIntExact(Math.ceilDiv(n, rowsAtOnce));
    this.deviations = new Deviation[pieces];
    this.kept = new ArrayList<>();
    for (int i = 0; i <= pieces; i++) { // the last for what is not made of rows
      kept.add(List.of());
    }
  }

  LayerWork.Fresh item() {
    return item;
  }

  LayerWriter.Written written() {
    return written;
  }

  RowQuantizer rows() {
    return rows;
  }

  int pieces() {
    return deviations.length;
  }

  private long columns() {
    return n == 0 ? 0 : item.weight().elements() / n;
  }

  /** The index of a piece's first row. */
  private long first(int piece) {
    return piece * rowsAtOnce;
  }

  /** The numbers of a piece, mapped until the arena ends. */
  Tensor read(int piece, Checkpoint source, Arena arena) {
    Tensor weight = item.weight();
    long bytesPerRow = columns() * type.bits() / 8;
    long count = Math.min(rowsAtOnce, n - first(piece));
    MemorySegment part = weight.data().asSlice(first(piece) * bytesPerRow, count * bytesPerRow);
    return new Tensor(
        weight.name(), weight.dtype(), List.of(count, columns()), source.again(part, arena));
  }

  /** Quantizes the numbers of a piece. */
  RowQuantizer.Piece quantize(int piece, Tensor numbers, Backend backend, Arena arena) {
    return rows.quantize(first(piece), numbers, scaling, backend, arena);
  }

  /** Writes what stands for a piece, and keeps in mind what that was. */
  void write(int piece, List<RowQuantizer.Part> parts, Deviation deviation, TensorFileWriter out) {
    deviations[piece] = deviation;
    kept.set(piece, write(parts, out));
  }

  /** Writes what is not made of rows. */
  void writeRest(List<Tensor> tensors, TensorFileWriter out) {
    kept.set(
        pieces(),
        write(
            tensors.stream().map(t -> new RowQuantizer.Part(t.name(), 0, t.data())).toList(), out));
  }

  private List<Kept> write(List<RowQuantizer.Part> parts, TensorFileWriter out) {
    List<String> names = written.tensors().stream().map(SafetensorsWriter.Entry::name).toList();
    List<Kept> all = new ArrayList<>();
    for (RowQuantizer.Part part : parts) {
      out.write(part.tensor(), part.offset(), part.bytes());
      all.add(
          new Kept(
              names.indexOf(part.tensor()),
              part.offset(),
              part.bytes().byteSize(),
              checksum(part.bytes())));
    }
    return all;
  }

  private static long checksum(MemorySegment bytes) {
    CRC32C checksum = new CRC32C();
    checksum.update(bytes.asByteBuffer());
    return checksum.getValue();
  }

  /** What was done, once every piece is; the sum does not depend on who did what when. */
  LayerReport report() {
    LayerReport done = report;
    if (done == null) {
      Deviation all = Arrays.stream(deviations).reduce(Deviation.NONE, Deviation::plus);
      long bytes = written.tensors().stream().mapToLong(SafetensorsWriter.Entry::byteSize).sum();
      done =
          new ErrorMeter(all)
              .report(
                  item.layer(),
                  n,
                  columns(),
                  item.bytes(),
                  bytes,
                  LayerReport.How.QUANTIZED,
                  item.format());
      report = done;
    }
    return done;
  }

  /** The journal's line of a layer that is written. */
  ObjectNode line() {
    ObjectNode line = Journal.line();
    Journal.put(line, report());
    ArrayNode parts = line.putArray("parts");
    for (List<Kept> piece : kept) {
      for (Kept part : piece) {
        parts.addArray().add(part.tensor).add(part.offset).add(part.length).add(part.checksum);
      }
    }
    return line;
  }

  /** Whether an interrupted run has written this layer and all of its bytes are there. */
  boolean restore(ObjectNode line, TensorFileWriter out) {
    LayerReport before;
    List<List<Long>> parts = new ArrayList<>();
    try {
      before = Journal.report(line);
      for (JsonNode part : line.required("parts")) {
        parts.add(Journal.longs(part));
      }
    } catch (RuntimeException e) {
      return false; // not a line that was written whole
    }
    Map<String, Long> lengths = new HashMap<>();
    for (List<Long> part : parts) {
      if (!isThere(part, out, lengths)) {
        return false;
      }
    }
    for (SafetensorsWriter.Entry entry : written.tensors()) {
      if (lengths.getOrDefault(entry.name(), 0L) != entry.byteSize()) {
        return false;
      }
    }
    written.tensors().forEach(entry -> out.adopt(entry.name()));
    report = before;
    return true;
  }

  private boolean isThere(List<Long> part, TensorFileWriter out, Map<String, Long> lengths) {
    int index = part.get(0).intValue();
    long offset = part.get(1);
    long length = part.get(2);
    if (index < 0 || index >= written.tensors().size()) {
      return false;
    }
    SafetensorsWriter.Entry entry = written.tensors().get(index);
    lengths.merge(entry.name(), length, Long::sum);
    return offset >= 0
        && length >= 0
        && length <= entry.byteSize() - offset
        && out.find(entry.name(), offset, length, bytes -> checksum(bytes) == part.get(3));
  }
}
