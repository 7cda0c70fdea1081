package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Tiles.WIDTH;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixCheck;
import dev.gatun.kernel.Operation;
import dev.gatun.kernel.PackedWeight;
import dev.gatun.kernel.codec.BlockParts;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.EnumMap;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;
import org.jspecify.annotations.Nullable;

/**
 * A weight in panels of {@link Tiles#WIDTH} outputs, so that one vector holds the same k of as many
 * outputs as it has lanes. Codes keep their bits; scales, zero points and offsets lie beside them
 * as floats, resolved once. GGUF's blocks are taken apart into the same; they are kept beside it,
 * since their bytes cannot be put together again from floats.
 */
final class Panels implements PackedWeight {
  /** So that a row fits into an array. */
  static final long MAX_K = 1L << 28;

  /** How the codes of one panel lie. A vector of the panel's first (second) half is half 0 (1). */
  enum Form {
    /** F32, F16, BF16: [k][WIDTH]. */
    PLAIN,
    /** Codes of up to 4 bits: [k/8][half][lane] 32-bit words, k in nibble k % 8. */
    NIBBLES,
    /** Integers of more bits: [k][WIDTH] bytes, unsigned ones less 128 so that all are signed. */
    INTEGERS,
    /** Codes of up to 8 bits that are looked up: [k/4][half][lane] words, k in byte k % 4. */
    BYTES,
    /** None: rows are decoded from the matrix as it came. */
    ROWS
  }

  private final Arena arena = Arena.ofShared();
  private final AtomicBoolean closed = new AtomicBoolean();
  private final Kernels kernels;
  private final Map<Compute, Optional<String>> refusals = new EnumMap<>(Compute.class);
  private final boolean codesKept;
  private final long byteSize;

  /** As it was packed, in memory of its own; without codes unless {@code codesKept}. */
  final Matrix matrix;

  final Form form;
  final int k;

  /** How many groups of weights that share a scale a row has, and of how many columns. */
  final int groups;

  final int group;

  /** The group of each column, where they are not in order. */
  final int @Nullable [] columnGroups;

  final MemorySegment codes;
  final long panelBytes;

  /** [panel][group][WIDTH] floats, or none. */
  final @Nullable MemorySegment scales;

  final @Nullable MemorySegment zeros;
  final @Nullable MemorySegment offsets;

  /** Whether scales directly follow codes, in runs of whole words of codes. */
  final boolean scalesWithCodes;

  /** [panel][WIDTH] floats, or none. */
  final @Nullable MemorySegment rowScales;

  /**
   * What the codes mean, and what they mean to an integer multiply, less the zero point if all
   * codes have the same.
   */
  final float[] table;

  final float[] integerTable;

  /** The table of {@link Form#BYTES} in vectors, where that can be. */
  final @Nullable ByteTable byteTable;

  /** The matrix has been checked. */
  Panels(Matrix m, Kernels kernels, Workers workers) {
    if (m.k() > MAX_K) {
      throw new GatunException("vector: found K = " + m.k() + ", expected at most " + MAX_K);
    }
    k = (int) m.k();
    this.kernels = kernels;
    for (Compute compute : Compute.multiplies()) {
      refusals.put(compute, kernels.refuses(Operation.LINEAR, m, Optional.of(compute)));
    }
    BlockParts parts = BlockParts.of(m.encoding());
    float[] values = parts == null ? Forms.table(m) : parts.table();
    form = parts == null ? form(m) : values.length > 0 ? Form.NIBBLES : Form.INTEGERS;
    boolean panelled = form != Form.ROWS;
    table = Forms.less(values, m);
    integerTable = Forms.less(Forms.integerTable(m, values), m);
    byteTable = form == Form.BYTES ? ByteTable.of(table) : null;
    columnGroups = panelled ? Packer.columnGroups(m) : null;
    group = parts == null ? Math.max(1, Forms.group(m)) : parts.group();
    groups =
        !panelled ? 0 : columnGroups != null ? Packer.count(columnGroups) : Math.ceilDiv(k, group);
    scalesWithCodes =
        form != Form.PLAIN
            && m.zeros().isEmpty()
            && columnGroups == null
            && (group % 8 == 0 || groups <= 1);
    boolean done = false;
    try {
      long panels = Math.ceilDiv(m.n(), (long) WIDTH);
      panelBytes = panelBytes(m);
      codes = arena.allocate(Math.multiplyExact(panels, panelBytes), 64);
      boolean scaled = parts != null || m.scales().isPresent() || m.globalScale() != 1f;
      scales = floats(panelled && scaled, panels, groups);
      zeros = floats(panelled && m.zeros().isPresent(), panels, groups);
      boolean offset = parts == null ? m.offsets().isPresent() : parts.hasOffsets();
      offsets = floats(panelled && offset, panels, groups);
      rowScales = floats(panelled && m.rowScales().isPresent(), panels, 1);
      codesKept = !panelled || parts != null || !Forms.isDense(m);
      Matrix kept = codesKept ? m : m.toBuilder().codes(MemorySegment.NULL).build();
      matrix = kept.withMemory(this::copy);
      byteSize =
          codes.byteSize()
              + size(scales)
              + size(zeros)
              + size(offsets)
              + size(rowScales)
              + matrix.memory().values().stream().mapToLong(MemorySegment::byteSize).sum();
      if (panelled) {
        Thread helper = workers.helper();
        boolean common = helper != null && Forms.isAccessible(m, helper);
        Packer packer = new Packer(m, this);
        workers.run(
            (panel, worker) -> packer.pack(panel),
            Math.toIntExact(panels),
            common ? workers.threads() : 1);
      }
      done = true;
    } finally {
      if (!done) {
        arena.close();
      }
    }
  }

  private static Form form(Matrix m) {
    if (!Forms.hasCodes(m) || Forms.group(m) == 0 || m.rotation() > LinearRun.DEPTH) {
      return Form.ROWS;
    }
    if (m.encoding().isPlain()) {
      return Form.PLAIN;
    }
    if (m.encoding().bits() <= 4) {
      return Form.NIBBLES;
    }
    return Forms.isInteger(m) ? Form.INTEGERS : Form.BYTES;
  }

  private long panelBytes(Matrix m) {
    return switch (form) {
      case PLAIN -> (long) k * WIDTH * (m.encoding().bits() / 8);
      case NIBBLES -> Math.ceilDiv(k, 8L) * 4 * WIDTH;
      case INTEGERS -> (long) k * WIDTH;
      case BYTES -> Math.ceilDiv(k, 4L) * 4 * WIDTH;
      case ROWS -> 0;
    };
  }

  private @Nullable MemorySegment floats(boolean wanted, long panels, long each) {
    return wanted
        ? arena.allocate(Math.multiplyExact(panels * each, (long) WIDTH * Float.BYTES), 64)
        : null;
  }

  private MemorySegment copy(MemorySegment bytes) {
    return arena.allocate(bytes.byteSize(), 64).copyFrom(bytes);
  }

  private static long size(@Nullable MemorySegment data) {
    return data == null ? 0 : data.byteSize();
  }

  /**
   * Whether codes are looked up in a table, from which a common zero point is subtracted already.
   */
  boolean isTable() {
    return form == Form.NIBBLES || form == Form.BYTES;
  }

  /** What makes an unsigned code a signed byte, by exclusive or. */
  int flip() {
    boolean signed = matrix.encoding() == Encoding.I8 || matrix.encoding().isBlock();
    return form == Form.INTEGERS && !signed ? 0x80 : 0;
  }

  /** What is subtracted from the signed bytes of {@link Form#INTEGERS}, zero point included. */
  float integerZero() {
    return (zeros == null ? matrix.zeroPoint() : 0) - flip();
  }

  /** The group of a column. */
  int groupOf(int column) {
    return columnGroups == null ? column / group : columnGroups[column];
  }

  /** The end of the columns from this one on that are of its group. */
  int runEnd(int column) {
    if (columnGroups == null) {
      return Math.min(k, (column / group + 1) * group);
    }
    int end = column + 1;
    while (end < k && columnGroups[end] == columnGroups[column]) {
      end++;
    }
    return end;
  }

  void unpack(Matrix into) {
    checkOpen();
    MatrixCheck.unpack(matrix, into);
    Map<String, MemorySegment> buffers = into.memory();
    matrix
        .memory()
        .forEach(
            (role, data) -> {
              MemorySegment to = buffers.get(role);
              MemorySegment.copy(data, 0, to, 0, Math.min(data.byteSize(), to.byteSize()));
            });
    if (!codesKept) {
      new Packer(into, this).unpack();
    }
  }

  /** Refuses what there is no kernel for. */
  void checkCompute(Compute compute) {
    Optional<String> why = refusals.get(compute);
    if (why != null && why.isPresent()) {
      throw new GatunException("vector: " + why.get());
    }
  }

  void checkOpen() {
    if (closed.get()) {
      throw new IllegalStateException("this packed weight is closed");
    }
  }

  @Override
  public long n() {
    return matrix.n();
  }

  @Override
  public long k() {
    return matrix.k();
  }

  @Override
  public long byteSize() {
    return byteSize;
  }

  @Override
  public String kernel(Compute compute, long m) {
    checkOpen();
    checkCompute(compute);
    return kernels.linear(matrix.encoding(), compute);
  }

  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      arena.close();
    }
  }
}
