package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.kernel.codec.Activations;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.Hadamard;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.jspecify.annotations.Nullable;

/** An owned copy of the matrix as it came, and the definition of {@code linear} on it. */
final class ReferencePacked implements PackedWeight {
  /** So that a row fits into an array. */
  static final long MAX_K = 1L << 28;

  /** How many consecutive k share a scale with compute types I8_BLOCK and F8_BLOCK. */
  private static final int BLOCK = 32;

  private static final int FLOATS_BLOCK = 128;

  /** What x becomes with compute types F8_ROW and F8_BLOCK. */
  private static final Encoding FLOATS = Encoding.F8_E4M3;

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
    matrix = m.withMemory(this::copy);
    byteSize = matrix.memory().values().stream().mapToLong(MemorySegment::byteSize).sum();
  }

  private MemorySegment copy(MemorySegment bytes) {
    return arena.allocate(bytes.byteSize(), 64).copyFrom(bytes);
  }

  /** Whether there are weights of this encoding that the compute type takes. */
  static boolean hasCodes(Encoding encoding, Compute compute) {
    return compute.isFloats8() ? Fp8.is(encoding) : !compute.isIntegers() || hasIntegers(encoding);
  }

  /** Whether the codes of this encoding are integers, up to one factor, for an int8 multiply. */
  private static boolean hasIntegers(Encoding encoding) {
    return switch (encoding) {
      case I8, U8, I4, U4, F4_E2M1, NF4, FP4, U1, U2, U3, U5, U6, U7, I2 -> true;
      default -> encoding.isBlock();
    };
  }

  /** Why an integer multiply cannot take this matrix; empty when it can. */
  static Optional<String> refuses(Matrix m, Compute compute) {
    return compute.isIntegers() && m.codebook().isPresent() && m.rowScales().isEmpty()
        ? Optional.of("a codebook of its own has no integers for compute " + compute)
        : Optional.empty();
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
    Map<String, MemorySegment> buffers = into.memory();
    matrix.memory().forEach((role, data) -> copyTo(data, buffers.get(role)));
  }

  private static void copyTo(MemorySegment from, MemorySegment to) {
    MemorySegment.copy(from, 0, to, 0, Math.min(from.byteSize(), to.byteSize()));
  }

  /** The call has been checked. */
  void linear(LinearCall<MemorySegment> call) {
    Compute compute = call.compute();
    checkOpen();
    ReferenceBackend.linearName(matrix.encoding(), compute); // refuses what there is no kernel for
    refuses(matrix, compute)
        .ifPresent(
            why -> {
              throw new GatunException("reference: " + why);
            });
    MemorySegment bias = call.bias();
    MemorySegment other = call.other();
    Encoding yType = call.yType();
    Scratch s = take();
    for (long m0 = 0; m0 < call.m(); m0 += tile) {
      int rows = (int) Math.min(tile, call.m() - m0);
      for (int i = 0; i < rows; i++) {
        loadX(call, m0 + i, s, i);
      }
      for (long n = 0; n < matrix.n(); n++) {
        loadW(n, compute, s);
        double b = bias == null ? 0 : Numbers.get(Encoding.F32, bias, n);
        for (int i = 0; i < rows; i++) {
          double product = dot(s.x, i * k, s.w, k) * s.xScale[i];
          double sum = bias == null ? product : product + b;
          double and = other == null ? 0 : Numbers.get(yType, other, (m0 + i) * call.ldOther() + n);
          Numbers.put(
              yType,
              call.y(),
              (m0 + i) * call.ldy() + n,
              Activations.apply(call.epilogue(), sum, and));
        }
      }
    }
    give(s);
  }

  private void loadX(LinearCall<MemorySegment> call, long row, Scratch s, int i) {
    Compute compute = call.compute();
    MemorySegment multiplier = call.multiplier();
    int start = i * k;
    for (int j = 0; j < k; j++) {
      float v = Numbers.get(call.xType(), call.x(), row * call.ldx() + j);
      v = multiplier == null ? v : v * Numbers.get(Encoding.F32, multiplier, j);
      s.x[start + j] = compute == Compute.BF16 ? HalfFloat.round(Encoding.BF16, v) : v;
    }
    s.xScale[i] = 1;
    MemorySegment given = call.xScales();
    if (given != null) {
      for (int j = 0; j < k; j++) {
        s.x[start + j] *= Numbers.get(Encoding.F32, given, call.xScaleIndex(row, j));
      }
      return;
    }
    if (!compute.isIntegers() && !compute.isFloats8()) {
      return;
    }
    // An integer multiply takes the rotated codes as they are and turns x instead.
    if (matrix.rotation() > 1) {
      for (int j = start; j < start + k; j += matrix.rotation()) {
        Hadamard.apply(s.x, j, matrix.rotation());
      }
      for (int j = start; j < start + k; j++) {
        s.x[j] = (float) s.x[j];
      }
    }
    boolean floats = compute.isFloats8();
    if (compute == Compute.I8 || compute == Compute.F8_ROW) {
      s.xScale[i] = quantize(s.x, start, k, floats, call.xScale());
      return;
    }
    int block = floats ? FLOATS_BLOCK : BLOCK;
    for (int j = 0; j < k; j += block) {
      int count = Math.min(block, k - j);
      double scale = quantize(s.x, start + j, count, floats, 0);
      for (int l = start + j; l < start + j + count; l++) {
        s.x[l] *= scale;
      }
    }
  }

  /**
   * Rounds numbers to 8-bit integers, or to F8_E4M3, and gives their scale: absmax / 127, or / 448,
   * unless one is given (not 0). Numbers with NaN or infinity among them have no scale: they are
   * multiplied as they are, so that those reach y.
   */
  private static float quantize(double[] x, int from, int count, boolean floats, float given) {
    float largest = 0;
    for (int j = from; j < from + count; j++) {
      largest = Math.max(largest, (float) Math.abs(x[j]));
    }
    if (!Float.isFinite(largest)) {
      return 1;
    }
    float scale = given != 0 ? given : largest / (floats ? Fp8.max(FLOATS) : 127f);
    for (int j = from; j < from + count; j++) {
      float q = scale == 0 ? 0 : (float) x[j] / scale;
      x[j] = floats ? Fp8.decode(FLOATS, Fp8.encode(FLOATS, q)) : Math.rint(q);
    }
    return scale;
  }

  private void loadW(long n, Compute compute, Scratch s) {
    boolean codes = compute.isIntegers() || compute.isFloats8();
    if (!codes || matrix.encoding().isBlock()) {
      MatrixValues.row(matrix, n, 0, k, s.row);
      for (int j = 0; j < k; j++) {
        s.w[j] = compute == Compute.BF16 ? HalfFloat.round(Encoding.BF16, s.row[j]) : s.row[j];
      }
      return;
    }
    boolean rowScaled = matrix.rowScales().isPresent();
    float rowScale = MatrixValues.rowScale(matrix, n);
    int done = 0;
    while (done < k) {
      int end = done + (int) Math.min(k - done, MatrixValues.run(matrix, n, done));
      double zero = MatrixValues.zero(matrix, n, done);
      double scale = MatrixValues.scale(matrix, n, done);
      if (matrix.scaleOrder() == ScaleOrder.THEN_GLOBAL) {
        scale *= matrix.globalScale();
      }
      double offset = MatrixValues.offset(matrix, n, done);
      for (int j = done; j < end; j++) {
        float code = MatrixValues.decode(matrix, n, j);
        double product =
            rowScaled
                ? (double) MatrixValues.whole((float) ((code - zero) * scale)) * rowScale
                : (integer(matrix.encoding(), code) - zero) * scale;
        s.w[j] = product + offset;
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
