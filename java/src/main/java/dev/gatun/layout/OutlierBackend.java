package dev.gatun.layout;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.LinearCall;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.Operation;
import dev.gatun.kernel.PackedWeight;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.UnfusedLinear;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.BitSet;
import java.util.List;
import java.util.Optional;

/**
 * LLM.int8()'s product around a backend that multiplies integers. x is rounded to half precision. A
 * column in which any |x| is at least 6 is an outlier column: its part of y is computed in floats.
 * The rest of a row is rounded to {@code x · (127 / absmax)}, absmax being the largest |x| below 6
 * of the row, outlier columns included, and multiplied in integers. Source:
 * bitsandbytes/autograd/_functions.py, MatMul8bitLt; results are not rounded to half precision
 * here.
 */
final class OutlierBackend implements Backend {
  static final float THRESHOLD = 6f;

  /** The packed weight and a copy of the matrix, from which outlier columns are taken. */
  private static final class Weight implements PackedWeight {
    final PackedWeight packed;
    final Matrix matrix;
    private final Arena arena = Arena.ofShared();
    private boolean closed;

    Weight(PackedWeight packed, Matrix m) {
      this.packed = packed;
      this.matrix =
          m.withMemory(data -> arena.allocate(Math.max(1, data.byteSize()), 64).copyFrom(data));
    }

    @Override
    public long n() {
      return packed.n();
    }

    @Override
    public long k() {
      return packed.k();
    }

    @Override
    public long byteSize() {
      return packed.byteSize()
          + matrix.memory().values().stream().mapToLong(MemorySegment::byteSize).sum();
    }

    @Override
    public String kernel(Compute compute, long m) {
      return packed.kernel(compute, m) + "+outliers";
    }

    @Override
    public synchronized void close() {
      if (!closed) {
        closed = true;
        packed.close();
        arena.close();
      }
    }
  }

  private final Backend backend;

  OutlierBackend(Backend backend) {
    this.backend = backend;
  }

  @Override
  public String name() {
    return backend.name();
  }

  @Override
  public List<Kernel> kernels() {
    return backend.kernels();
  }

  @Override
  public Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute) {
    return backend.refuses(operation, matrix, compute);
  }

  @Override
  public String dequantize(
      Matrix matrix, long row0, long rows, MemorySegment out, Encoding outType) {
    return backend.dequantize(matrix, row0, rows, out, outType);
  }

  @Override
  public String embedding(Matrix matrix, long[] ids, MemorySegment out, Encoding outType) {
    return backend.embedding(matrix, ids, out, outType);
  }

  @Override
  public String quantize(Matrix matrix, QuantizeRule rule, MemorySegment w, Encoding wType) {
    return backend.quantize(matrix, rule, w, wType);
  }

  @Override
  public String convert(
      MemorySegment src,
      Encoding srcType,
      MemorySegment dst,
      Encoding dstType,
      long count,
      boolean saturate) {
    return backend.convert(src, srcType, dst, dstType, count, saturate);
  }

  @Override
  public PackedWeight pack(Matrix matrix) {
    return new Weight(backend.pack(matrix), matrix);
  }

  @Override
  public void unpack(PackedWeight packed, Matrix into) {
    backend.unpack(mine(packed).packed, into);
  }

  @Override
  public void linear(PackedWeight packed, LinearCall<MemorySegment> call) {
    Weight weight = mine(packed);
    call.check(weight.n(), weight.k());
    if (call.compute() != Compute.I8 || call.isRounded() || call.xScales() != null) {
      backend.linear(weight.packed, call);
    } else if (call.isPlain()) {
      plain(weight, call);
    } else {
      UnfusedLinear.run(weight, call, (w, plain) -> plain(weight, plain));
    }
  }

  private void plain(Weight weight, LinearCall<MemorySegment> call) {
    int n = Math.toIntExact(weight.n());
    int k = Math.toIntExact(weight.k());
    int[] outliers = outlierColumns(call, k);
    float[] columns = columns(weight.matrix, outliers);
    float[] row = new float[k];
    float[] sums = new float[n];
    LinearCall<MemorySegment> integers =
        LinearCall.of(
                MemorySegment.ofArray(row),
                Encoding.F32,
                k,
                1,
                MemorySegment.ofArray(sums),
                Encoding.F32,
                n)
            .threads(call.threads());
    MemorySegment bias = call.bias();
    for (long i = 0; i < call.m(); i++) {
      float[] apart = new float[outliers.length];
      float absmax = 0;
      for (int j = 0; j < k; j++) {
        row[j] = half(call, i, j);
        if (Math.abs(row[j]) < THRESHOLD) {
          absmax = Math.max(absmax, Math.abs(row[j]));
        }
      }
      for (int c = 0; c < outliers.length; c++) {
        apart[c] = row[outliers[c]];
        row[outliers[c]] = 0;
      }
      float largest = quantize(row, absmax);
      // An integer multiply scales a row to 127; one that is there already comes out as it is.
      backend.linear(weight.packed, integers.compute(largest == 127f ? Compute.I8 : Compute.F32));
      for (int o = 0; o < n; o++) {
        double sum = (double) sums[o] * (absmax / 127f);
        for (int c = 0; c < outliers.length; c++) {
          sum += (double) apart[c] * columns[c * n + o];
        }
        sum += bias == null ? 0 : Numbers.get(Encoding.F32, bias, o);
        Numbers.put(call.yType(), call.y(), i * call.ldy() + o, sum);
      }
    }
  }

  /** Rounds a row to integers in place and gives the largest magnitude. NaN stays. */
  private static float quantize(float[] row, float absmax) {
    float scale = absmax == 0 ? 0 : 127f / absmax;
    float largest = 0;
    for (int j = 0; j < row.length; j++) {
      row[j] = (float) Math.rint(row[j] * scale);
      largest = Math.max(largest, Math.abs(row[j]));
    }
    return largest;
  }

  /** NaN is no outlier; infinity is. */
  private static int[] outlierColumns(LinearCall<MemorySegment> call, int k) {
    BitSet columns = new BitSet(k);
    for (long i = 0; i < call.m(); i++) {
      for (int j = 0; j < k; j++) {
        if (Math.abs(half(call, i, j)) >= THRESHOLD) {
          columns.set(j);
        }
      }
    }
    return columns.stream().toArray();
  }

  /** The weight's outlier columns, one after the other. */
  private static float[] columns(Matrix m, int[] outliers) {
    int n = Math.toIntExact(m.n());
    float[] values = new float[outliers.length * n];
    for (int c = 0; c < outliers.length; c++) {
      for (int o = 0; o < n; o++) {
        values[c * n + o] = MatrixValues.weight(m, o, outliers[c]);
      }
    }
    return values;
  }

  private static float half(LinearCall<MemorySegment> call, long row, long column) {
    float v = Numbers.get(call.xType(), call.x(), row * call.ldx() + column);
    return HalfFloat.round(Encoding.F16, v);
  }

  private static Weight mine(PackedWeight packed) {
    if (packed instanceof Weight weight) {
      return weight;
    }
    throw new GatunException("llm_int8: found a weight that was packed for another entry point");
  }
}
