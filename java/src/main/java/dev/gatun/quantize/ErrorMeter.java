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

  /** Sums that are made side by side, which the JIT compiler turns into vector code. */
  private static final int LANES = 512;

  private double signal;
  private double noise;
  private double largest;
  private final double[] signals = new double[LANES];
  private final double[] noises = new double[LANES];
  private final int[] most = new int[LANES];

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
    meter.finish();
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

  private void add(float[] w, float[] restored, int length) {
    int at = 0;
    for (; at + LANES <= length; at += LANES) {
      lanes(w, restored, at, signals, noises, most);
    }
    for (; at < length; at++) {
      add(w[at], restored[at]);
    }
  }

  private static void lanes(
      float[] w, float[] restored, int at, double[] signals, double[] noises, int[] most) {
    for (int i = 0; i < LANES; i++) {
      double before = w[at + i];
      double difference = restored[at + i] - before;
      signals[i] += before * before;
      noises[i] += difference * difference;
    }
    for (int i = 0; i < LANES; i++) { // magnitudes are ordered as their bits are
      int bits = Float.floatToRawIntBits(restored[at + i] - w[at + i]) & 0x7FFFFFFF;
      most[i] = Math.max(most[i], bits);
    }
  }

  private void add(double before, double after) {
    double difference = after - before;
    signal += before * before;
    noise += difference * difference;
    largest = Math.max(largest, Math.abs(difference));
  }

  private void finish() {
    for (int i = 0; i < LANES; i++) {
      signal += signals[i];
      noise += noises[i];
      largest = Math.max(largest, Float.intBitsToFloat(most[i]));
    }
  }
}
