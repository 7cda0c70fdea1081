package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/** Measures how far a quantized weight is from what it was made of. */
final class ErrorMeter {
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Of the rows that are dequantized at once. */
  private static final long BYTES = 1 << 20;

  /** Numbers that are compared at once: few enough to stay in the cache. */
  private static final int PIECE = 1 << 14;

  private double signal;
  private double noise;
  private double largest;

  private ErrorMeter() {}

  /** Dequantizes the matrix a few rows at a time and compares. */
  static ErrorMeter measure(Matrix matrix, Tensor original, Backend backend) {
    ErrorMeter meter = new ErrorMeter();
    Encoding type = original.dtype().encoding().orElseThrow();
    long k = matrix.k();
    long step = Math.max(1, BYTES / Math.max(1, k * Float.BYTES));
    try (Arena arena = Arena.ofShared()) {
      MemorySegment restored =
          arena.allocate(Math.max(1, Math.min(step, matrix.n()) * k) * Float.BYTES, 64);
      MemorySegment before = arena.allocate(restored.byteSize(), 64);
      for (long row = 0; row < matrix.n(); row += step) {
        long rows = Math.min(step, matrix.n() - row);
        long bytesPerRow = k * type.bits() / 8;
        backend.dequantize(matrix, row, rows, restored, Encoding.F32);
        MemorySegment source = original.data().asSlice(row * bytesPerRow, rows * bytesPerRow);
        backend.convert(source, type, before, Encoding.F32, rows * k, false);
        meter.add(before, restored, rows * k);
      }
    }
    return meter;
  }

  /** Whether every number that was quantized is one. */
  boolean isFinite() {
    return Double.isFinite(signal);
  }

  /** ‖W‖². */
  double signal() {
    return signal;
  }

  /** ‖W' − W‖². */
  double noise() {
    return noise;
  }

  /** 10 · log10 of their ratio; infinite without noise. */
  double snrDb() {
    return noise == 0 ? Double.POSITIVE_INFINITY : 10 * Math.log10(signal / noise);
  }

  LayerReport report(
      String layer,
      Matrix matrix,
      long bytesBefore,
      long bytesAfter,
      LayerReport.How how,
      String format) {
    double relative = noise == 0 ? 0 : Math.sqrt(noise / signal);
    return new LayerReport(
        layer,
        matrix.n(),
        matrix.k(),
        bytesBefore,
        bytesAfter,
        relative,
        snrDb(),
        largest,
        how,
        format);
  }

  private void add(MemorySegment before, MemorySegment after, long count) {
    float[] w = new float[(int) Math.min(PIECE, count)];
    float[] restored = new float[w.length];
    for (long from = 0; from < count; from += w.length) {
      int length = (int) Math.min(w.length, count - from);
      MemorySegment.copy(before, FLOAT, from * Float.BYTES, w, 0, length);
      MemorySegment.copy(after, FLOAT, from * Float.BYTES, restored, 0, length);
      add(w, restored, length);
    }
  }

  /** Four sums each, so that one addition need not wait for the last. */
  private void add(float[] w, float[] restored, int length) {
    double s0 = 0;
    double s1 = 0;
    double s2 = 0;
    double s3 = 0;
    double n0 = 0;
    double n1 = 0;
    double n2 = 0;
    double n3 = 0;
    double most = 0;
    int i = 0;
    for (; i + 3 < length; i += 4) {
      double w0 = w[i];
      double w1 = w[i + 1];
      double w2 = w[i + 2];
      double w3 = w[i + 3];
      double d0 = restored[i] - w0;
      double d1 = restored[i + 1] - w1;
      double d2 = restored[i + 2] - w2;
      double d3 = restored[i + 3] - w3;
      s0 += w0 * w0;
      s1 += w1 * w1;
      s2 += w2 * w2;
      s3 += w3 * w3;
      n0 += d0 * d0;
      n1 += d1 * d1;
      n2 += d2 * d2;
      n3 += d3 * d3;
    }
    for (; i < length; i++) {
      double difference = restored[i] - (double) w[i];
      s0 += (double) w[i] * w[i];
      n0 += difference * difference;
    }
    for (i = 0; i < length; i++) {
      double difference = Math.abs(restored[i] - (double) w[i]);
      if (difference > most) {
        most = difference;
      }
    }
    signal += (s0 + s1) + (s2 + s3);
    noise += (n0 + n1) + (n2 + n3);
    largest = Math.max(largest, most);
  }
}
