package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.stream.IntStream;

/** Measures how far a quantized weight is from what it was made of. */
final class ErrorMeter {
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Of the rows that are dequantized at once. */
  private static final long BYTES = 1 << 20;

  /** Numbers that are compared at once: few enough to stay in the cache. */
  private static final int PIECE = 1 << 14;

  private static final int LANES = 512;
  private static final int STRIPES = 16;

  private double signal;
  private double noise;
  private double largest;

  private ErrorMeter() {}

  /**
   * Dequantizes the matrix a few rows at a time and compares. A matrix may be too large for a
   * second one beside it in memory, so that the cores share in it; in stripes, whose number does
   * not depend on the machine: the sums are the same everywhere.
   */
  static ErrorMeter measure(Matrix matrix, Tensor original, Backend backend) {
    long rows = Math.max(1, BYTES / Math.max(1, matrix.k() * Float.BYTES));
    ErrorMeter all = new ErrorMeter();
    IntStream.range(0, STRIPES)
        .parallel()
        .mapToObj(stripe -> stripe(matrix, original, backend, stripe * rows, rows))
        .toList()
        .forEach(all::add);
    return all;
  }

  /** Of {@code step} rows from the first one on, and again so many after all other stripes'. */
  private static ErrorMeter stripe(
      Matrix matrix, Tensor original, Backend backend, long first, long step) {
    ErrorMeter meter = new ErrorMeter();
    if (first >= matrix.n()) {
      return meter;
    }
    Encoding type = original.dtype().encoding().orElseThrow();
    long k = matrix.k();
    long bytesPerRow = k * type.bits() / 8;
    Lanes lanes = new Lanes();
    try (Arena arena = Arena.ofShared()) {
      MemorySegment restored =
          arena.allocate(Math.max(1, Math.min(step, matrix.n()) * k) * Float.BYTES, 64);
      MemorySegment before = arena.allocate(restored.byteSize(), 64);
      for (long row = first; row < matrix.n(); row += STRIPES * step) {
        long rows = Math.min(step, matrix.n() - row);
        backend.dequantize(matrix, row, rows, restored, Encoding.F32);
        MemorySegment source = original.data().asSlice(row * bytesPerRow, rows * bytesPerRow);
        backend.convert(source, type, before, Encoding.F32, rows * k, false);
        lanes.add(before, restored, rows * k);
      }
    }
    lanes.addTo(meter);
    return meter;
  }

  private void add(ErrorMeter other) {
    signal += other.signal;
    noise += other.noise;
    largest = Math.max(largest, other.largest);
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

  /** Sums that are made side by side, which the JIT compiler turns into vector code. */
  private static final class Lanes {
    private final double[] signals = new double[LANES];
    private final double[] noises = new double[LANES];
    private final int[] most = new int[LANES];
    private final float[] w = new float[PIECE];
    private final float[] restored = new float[PIECE];

    void add(MemorySegment before, MemorySegment after, long count) {
      for (long from = 0; from < count; from += PIECE) {
        int length = (int) Math.min(PIECE, count - from);
        MemorySegment.copy(before, FLOAT, from * Float.BYTES, w, 0, length);
        MemorySegment.copy(after, FLOAT, from * Float.BYTES, restored, 0, length);
        int at = 0;
        for (; at + LANES <= length; at += LANES) {
          add(at, LANES);
        }
        add(at, length - at);
      }
    }

    private void add(int at, int count) {
      for (int i = 0; i < count; i++) {
        double before = w[at + i];
        double difference = restored[at + i] - before;
        signals[i] += before * before;
        noises[i] += difference * difference;
      }
      for (int i = 0; i < count; i++) { // magnitudes are ordered as their bits are
        int bits = Float.floatToRawIntBits(restored[at + i] - w[at + i]) & 0x7FFFFFFF;
        most[i] = Math.max(most[i], bits);
      }
    }

    void addTo(ErrorMeter meter) {
      for (int i = 0; i < LANES; i++) {
        meter.signal += signals[i];
        meter.noise += noises[i];
        meter.largest = Math.max(meter.largest, Float.intBitsToFloat(most[i]));
      }
    }
  }
}
