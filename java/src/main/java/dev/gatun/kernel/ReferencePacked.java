package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.jspecify.annotations.Nullable;

/** An owned copy of the matrix as it came, and the definition of {@code linear} on it. */
final class ReferencePacked implements PackedWeight {
  /** So that a row fits into an array. */
  static final long MAX_K = 1L << 28;

  private static final int KEPT = 16;
  private static final int TILE_ELEMENTS = 1 << 20;

  /** Working memory of one call: a tile of x and one row of W. */
  private static final class Scratch {
    final double[] x;
    final double[] xScale;
    final double[] w;
    final float[] row;

    Scratch(int tile, int k) {
      x = new double[tile * k];
      xScale = new double[tile];
      w = new double[k];
      row = new float[k];
    }
  }

  private final Arena arena = Arena.ofShared();
  private final Matrix matrix;
  private final long byteSize;
  private final int k;
  private final int tile;
  private final AtomicReferenceArray<@Nullable Scratch> kept = new AtomicReferenceArray<>(KEPT);
  private final AtomicBoolean closed = new AtomicBoolean();

  ReferencePacked(Matrix m) {
    if (m.k() > MAX_K) {
      throw new GatunException("reference: found K = " + m.k() + ", expected at most " + MAX_K);
    }
    k = (int) m.k();
    tile = Math.clamp(TILE_ELEMENTS / Math.max(1, k), 1, 64);
    matrix =
        new Matrix(
            m.n(),
            m.k(),
            m.encoding(),
            m.highNibbleFirst(),
            m.codeRowStride(),
            copy(m.codes()),
            m.granularity(),
            m.scales().map(this::copy),
            m.nested().map(this::copy),
            m.globalScale(),
            m.zeros().map(this::copy),
            m.zeroPoint(),
            m.offsets().map(this::copy),
            m.offsetsSubtracted(),
            m.arithmetic(),
            m.result());
    byteSize =
        matrix.codes().byteSize()
            + size(matrix.scales())
            + size(matrix.zeros())
            + size(matrix.offsets())
            + matrix.nested().map(n -> n.codebook().byteSize() + n.scales().byteSize()).orElse(0L);
  }

  private static long size(Optional<Matrix.Values> values) {
    return values.map(v -> v.data().byteSize()).orElse(0L);
  }

  private Matrix.Values copy(Matrix.Values v) {
    return new Matrix.Values(v.type(), copy(v.data()));
  }

  private Matrix.Nested copy(Matrix.Nested n) {
    return new Matrix.Nested(copy(n.codebook()), copy(n.scales()), n.block(), n.offset());
  }

  private MemorySegment copy(MemorySegment bytes) {
    return arena.allocate(bytes.byteSize(), 64).copyFrom(bytes);
  }

  /**
   * Whether the codes of this encoding are integers, up to one factor, that an int8 multiply can
   * take.
   */
  static boolean hasIntegers(Encoding encoding) {
    return switch (encoding) {
      case I8, U8, I4, U4, F4_E2M1, NF4, FP4 -> true;
      default -> false;
    };
  }

  /** NF4 and FP4 have their codebook rounded to int8 for an int8 multiply; all else is exact. */
  private static double integer(Encoding encoding, float value) {
    return encoding == Encoding.NF4 || encoding == Encoding.FP4
        ? Math.rint(value * 127f) / 127.0
        : value;
  }

  void unpack(Matrix into) {
    checkOpen();
    MatrixCheck.unpack(matrix, into);
    copyTo(matrix.codes(), into.codes());
    matrix.scales().ifPresent(v -> copyTo(v.data(), into.scales().orElseThrow().data()));
    matrix.zeros().ifPresent(v -> copyTo(v.data(), into.zeros().orElseThrow().data()));
    matrix.offsets().ifPresent(v -> copyTo(v.data(), into.offsets().orElseThrow().data()));
    matrix
        .nested()
        .ifPresent(
            n -> {
              copyTo(n.codebook(), into.nested().orElseThrow().codebook());
              copyTo(n.scales(), into.nested().orElseThrow().scales());
            });
  }

  private static void copyTo(MemorySegment from, MemorySegment to) {
    MemorySegment.copy(from, 0, to, 0, Math.min(from.byteSize(), to.byteSize()));
  }

  /** The arguments have been checked. */
  void linear(
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      @Nullable MemorySegment bias,
      Compute compute) {
    checkOpen();
    ReferenceBackend.linearName(matrix.encoding(), compute); // refuses what there is no kernel for
    Scratch s = take();
    for (long m0 = 0; m0 < m; m0 += tile) {
      int rows = (int) Math.min(tile, m - m0);
      for (int i = 0; i < rows; i++) {
        loadX(x, xType, (m0 + i) * ldx, compute, s, i);
      }
      for (long n = 0; n < matrix.n(); n++) {
        loadW(n, compute, s);
        double b = bias == null ? 0 : Numbers.get(Encoding.F32, bias, n);
        for (int i = 0; i < rows; i++) {
          double product = dot(s.x, i * k, s.w, k) * s.xScale[i];
          Numbers.put(yType, y, (m0 + i) * ldy + n, bias == null ? product : product + b);
        }
      }
    }
    give(s);
  }

  private void loadX(MemorySegment x, Encoding xType, long at, Compute compute, Scratch s, int i) {
    int start = i * k;
    float largest = 0;
    for (int j = 0; j < k; j++) {
      float v = Numbers.get(xType, x, at + j);
      largest = Math.max(largest, Math.abs(v));
      s.x[start + j] = compute == Compute.BF16 ? HalfFloat.round(Encoding.BF16, v) : v;
    }
    s.xScale[i] = 1;
    // A row with NaN or infinity has no scale: it is multiplied as it is, so that they reach y.
    if (compute == Compute.I8 && Float.isFinite(largest)) {
      float scale = largest / 127f;
      s.xScale[i] = scale;
      for (int j = 0; j < k; j++) {
        s.x[start + j] = scale == 0 ? 0 : Math.rint((float) s.x[start + j] / scale);
      }
    }
  }

  private void loadW(long n, Compute compute, Scratch s) {
    if (compute != Compute.I8) {
      MatrixValues.row(matrix, n, 0, k, s.row);
      for (int j = 0; j < k; j++) {
        s.w[j] = compute == Compute.BF16 ? HalfFloat.round(Encoding.BF16, s.row[j]) : s.row[j];
      }
      return;
    }
    int done = 0;
    while (done < k) {
      int end = done + (int) Math.min(k - done, MatrixValues.run(matrix, n, done));
      double zero = MatrixValues.zero(matrix, n, done);
      double scale = MatrixValues.scale(matrix, n, done);
      double offset = MatrixValues.offset(matrix, n, done);
      for (int j = done; j < end; j++) {
        float code = Codebooks.decode(matrix.encoding(), MatrixValues.code(matrix, n, j));
        s.w[j] = (integer(matrix.encoding(), code) - zero) * scale + offset;
      }
      done = end;
    }
  }

  /** Four sums, so that the additions do not wait for each other. */
  private static double dot(double[] x, int from, double[] w, int k) {
    double a = 0;
    double b = 0;
    double c = 0;
    double d = 0;
    int j = 0;
    for (; j + 3 < k; j += 4) {
      a += x[from + j] * w[j];
      b += x[from + j + 1] * w[j + 1];
      c += x[from + j + 2] * w[j + 2];
      d += x[from + j + 3] * w[j + 3];
    }
    for (; j < k; j++) {
      a += x[from + j] * w[j];
    }
    return a + b + (c + d);
  }

  private Scratch take() {
    for (int i = 0; i < KEPT; i++) {
      Scratch s = kept.getAndSet(i, null);
      if (s != null) {
        return s;
      }
    }
    return new Scratch(tile, k);
  }

  private void give(Scratch s) {
    for (int i = 0; i < KEPT; i++) {
      if (kept.compareAndSet(i, null, s)) {
        return;
      }
    }
  }

  private void checkOpen() {
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
    return ReferenceBackend.linearName(matrix.encoding(), compute);
  }

  @Override
  public void close() {
    if (closed.compareAndSet(false, true)) {
      arena.close();
    }
  }
}
