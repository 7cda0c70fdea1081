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

  private double signal;
  private double noise;
  private double largest;

  private ErrorMeter() {}

  /** Dequantizes the matrix a few rows at a time and compares. */
  static ErrorMeter measure(Matrix matrix, Tensor original, Backend backend) {
    ErrorMeter meter = new ErrorMeter();
    Encoding type = original.dtype().encoding().orElseThrow();
    long k = matrix.k();
    long step = RowChunks.rows(k * Float.BYTES);
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

  LayerReport report(
      String layer,
      Matrix matrix,
      long bytesBefore,
      long bytesAfter,
      LayerReport.How how,
      String format) {
    double relative = noise == 0 ? 0 : Math.sqrt(noise / signal);
    double snr = noise == 0 ? Double.POSITIVE_INFINITY : 10 * Math.log10(signal / noise);
    return new LayerReport(
        layer,
        matrix.n(),
        matrix.k(),
        bytesBefore,
        bytesAfter,
        relative,
        snr,
        largest,
        how,
        format);
  }

  private void add(MemorySegment before, MemorySegment after, long count) {
    for (long i = 0; i < count; i++) {
      double w = before.get(FLOAT, 4 * i);
      double difference = after.get(FLOAT, 4 * i) - w;
      signal += w * w;
      noise += difference * difference;
      largest = Math.max(largest, Math.abs(difference));
    }
  }
}
