package dev.gatun.kernel.vector;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Rounding;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.LinearCall;
import dev.gatun.kernel.LinearCheck;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixCheck;
import dev.gatun.kernel.Operation;
import dev.gatun.kernel.PackedWeight;
import dev.gatun.kernel.Pool;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.ReferenceBackend;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.jspecify.annotations.Nullable;

/**
 * Pure Java on the Vector API. Runs whatever the definition does: codes of up to 8 bits and plain
 * numbers from panels, everything else row by row.
 */
public final class VectorBackend implements Backend, AutoCloseable {
  /** Calls that may run at once without new working memory. */
  private static final int KEPT = 16;

  /** Elements of a unit of a codec's work. */
  private static final long UNIT = 1 << 16;

  /** Numbers of a unit of conversion. */
  private static final long CONVERTED = 1 << 20;

  private final ReferenceBackend definition = new ReferenceBackend();
  private final Kernels kernels = new Kernels(definition);
  private final Workers workers;
  private final Pool<Rounder> rounders = new Pool<>(Rounder::new);
  private final AtomicReferenceArray<@Nullable LinearRun> kept = new AtomicReferenceArray<>(KEPT);

  /**
   * A backend with its own threads.
   *
   * @param threads how many an operation may use, the caller's included; at least 1
   */
  public VectorBackend(int threads) {
    workers = new Workers(threads);
  }

  @Override
  public String name() {
    return "vector";
  }

  @Override
  public List<Kernel> kernels() {
    return kernels.table();
  }

  @Override
  public Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute) {
    return kernels.refuses(operation, matrix, compute);
  }

  @Override
  public String dequantize(
      Matrix matrix, long row0, long rows, MemorySegment out, Encoding outType) {
    MatrixCheck.rows(matrix, row0, rows, out, outType);
    rows(matrix, rows, row -> row0 + row, out, outType);
    return kernels.name(Operation.DEQUANTIZE, matrix.encoding());
  }

  @Override
  public String embedding(Matrix matrix, long[] ids, MemorySegment out, Encoding outType) {
    MatrixCheck.embedding(matrix, ids, out, outType);
    rows(matrix, ids.length, row -> ids[(int) row], out, outType);
    return kernels.name(Operation.EMBEDDING, matrix.encoding());
  }

  /** Which row of the matrix an output row is. */
  private interface RowNumber {
    long of(long row);
  }

  private void rows(Matrix m, long count, RowNumber number, MemorySegment out, Encoding outType) {
    int threads = threads(m, out);
    Rows[] readers = new Rows[threads];
    float[][] pieces = new float[threads][];
    for (int i = 0; i < threads; i++) {
      readers[i] = new Rows(m);
      pieces[i] = new float[Rows.PIECE];
    }
    long each = Math.max(1, UNIT / Math.max(1, m.k()));
    workers.run(
        (unit, worker) -> {
          long end = Math.min(count, (unit + 1) * each);
          for (long row = unit * each; row < end; row++) {
            for (long column = 0; column < m.k(); column += Rows.PIECE) {
              int size = (int) Math.min(Rows.PIECE, m.k() - column);
              readers[worker].read(number.of(row), column, size, pieces[worker]);
              long at = row * m.k() + column;
              Lanes.store(outType, pieces[worker], 0, size, out, at, readers[worker].halves);
            }
          }
        },
        Math.toIntExact(Math.ceilDiv(count, each)),
        threads);
  }

  /** As many threads as there are, unless some memory belongs to the caller alone. */
  private int threads(Matrix m, MemorySegment... others) {
    Thread helper = workers.helper();
    if (helper == null || !Forms.isAccessible(m, helper)) {
      return 1;
    }
    for (MemorySegment other : others) {
      if (!other.isAccessibleBy(helper)) {
        return 1;
      }
    }
    return workers.threads();
  }

  @Override
  public String quantize(Matrix matrix, QuantizeRule rule, MemorySegment w, Encoding wType) {
    MatrixCheck.quantize(matrix, rule, w, wType);
    long step = RowRange.step(matrix);
    int threads = threads(matrix, w);
    if (step == 0 || threads == 1) {
      definition.quantize(matrix, rule, w, wType);
    } else {
      long each = Math.ceilDiv(Math.max(1, UNIT / matrix.k()), step) * step;
      workers.run(
          (unit, worker) -> {
            long first = unit * each;
            long rows = Math.min(each, matrix.n() - first);
            MemorySegment numbers = w.asSlice(first * matrix.k() * (wType.bits() / 8));
            definition.quantize(RowRange.of(matrix, first, rows), rule, numbers, wType);
          },
          Math.toIntExact(Math.ceilDiv(matrix.n(), each)),
          threads);
    }
    return kernels.name(Operation.QUANTIZE, matrix.encoding());
  }

  @Override
  public String convert(
      MemorySegment src,
      Encoding srcType,
      MemorySegment dst,
      Encoding dstType,
      long count,
      boolean saturate) {
    MatrixCheck.convert(src, srcType, dst, dstType, count);
    Thread helper = workers.helper();
    boolean shared = helper != null && src.isAccessibleBy(helper) && dst.isAccessibleBy(helper);
    workers.run(
        (unit, worker) -> {
          long first = unit * CONVERTED;
          Converter converter = new Converter(srcType, dstType, saturate);
          converter.convert(src, dst, first, Math.min(CONVERTED, count - first));
        },
        Math.toIntExact(Math.ceilDiv(count, CONVERTED)),
        shared ? workers.threads() : 1);
    return kernels.name(Operation.CONVERT, dstType);
  }

  @Override
  public PackedWeight pack(Matrix matrix) {
    MatrixCheck.check(matrix);
    return new Panels(matrix, kernels, workers);
  }

  @Override
  public void unpack(PackedWeight packed, Matrix into) {
    mine(packed).unpack(into);
  }

  @Override
  public void linear(PackedWeight packed, LinearCall<MemorySegment> call) {
    Panels weight = mine(packed);
    call.check(weight.n(), weight.k());
    call.checkNumbers("vector");
    weight.checkOpen();
    weight.checkCompute(call.compute());
    LinearRun run = take();
    try {
      run.run(weight, call, call.threads() == 0 ? workers.threads() : call.threads());
    } finally {
      give(run);
    }
  }

  @Override
  public void round(
      Rounding rounding,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long rows,
      long columns,
      @Nullable MemorySegment xMultiplier,
      MemorySegment y,
      Encoding yType,
      long ldy,
      int threads) {
    LinearCheck.round(x, xType, ldx, rows, columns, xMultiplier, y, yType, ldy);
    Rounder rounder = rounders.take();
    for (long i = 0; i < rows; i++) {
      for (long j = 0; j < columns; j += Rounder.PIECE) {
        int count = (int) Math.min(Rounder.PIECE, columns - j);
        rounder.load(x, xType, i * ldx + j, count);
        if (xMultiplier != null) {
          rounder.multiply(xMultiplier, j, count, xType);
        }
        rounder.round(rounding, xType, count);
        rounder.store(y, yType, i * ldy + j, count);
      }
    }
    rounders.give(rounder);
  }

  private LinearRun take() {
    for (int i = 0; i < KEPT; i++) {
      LinearRun run = kept.getAndSet(i, null);
      if (run != null) {
        return run;
      }
    }
    return new LinearRun(workers);
  }

  private void give(LinearRun run) {
    for (int i = 0; i < KEPT; i++) {
      if (kept.compareAndSet(i, null, run)) {
        return;
      }
    }
  }

  private static Panels mine(PackedWeight packed) {
    if (Objects.requireNonNull(packed, "packed") instanceof Panels weight) {
      return weight;
    }
    throw new GatunException(
        "vector: found a weight that another backend packed, expected one of its own");
  }

  /** Ends the threads; later operations are done by their callers alone. */
  @Override
  public void close() {
    workers.close();
  }
}
