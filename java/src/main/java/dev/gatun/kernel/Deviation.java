package dev.gatun.kernel;

import dev.gatun.Encoding;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * How far weights W' are from the numbers W that they were made of. Deviations of parts of a weight
 * add up to that of the whole.
 *
 * @param signal ‖W‖²: the sum of the squares; not finite when a number is not
 * @param noise ‖W' − W‖²
 * @param largest |w' − w|; NaN when one is NaN
 */
public record Deviation(double signal, double noise, double largest) {
  /** Of no numbers. */
  public static final Deviation NONE = new Deviation(0, 0, 0);

  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Of the rows that are dequantized at once. */
  private static final long BYTES = 1 << 20;

  /** Numbers that are compared at once: few enough to stay in the cache. */
  private static final int PIECE = 1 << 14;

  private static final int LANES = 512;

  /** Of both parts together. */
  public Deviation plus(Deviation other) {
    return new Deviation(
        signal + other.signal, noise + other.noise, Math.max(largest, other.largest));
  }

  /** Dequantizes rows a few at a time and compares them: {@link Backend#deviation} in Java. */
  static Deviation of(
      Backend backend, Matrix matrix, long row0, long rows, MemorySegment w, Encoding wType) {
    MatrixCheck.deviation(matrix, row0, rows, w, wType);
    long k = matrix.k();
    long wRow = k * wType.bits() / 8;
    long step = Math.clamp(BYTES / Math.max(1, k * Float.BYTES), 1, Math.max(1, rows));
    Lanes lanes = new Lanes();
    try (Arena arena = Arena.ofShared()) {
      MemorySegment restored = arena.allocate(Math.max(1, step * k * Float.BYTES), 64);
      MemorySegment before = arena.allocate(restored.byteSize(), 64);
      for (long row = 0; row < rows; row += step) {
        long count = Math.min(step, rows - row);
        backend.dequantize(matrix, row0 + row, count, restored, Encoding.F32);
        backend.convert(
            w.asSlice(row * wRow, count * wRow), wType, before, Encoding.F32, count * k, false);
        lanes.add(before, restored, count * k);
      }
    }
    return lanes.sum();
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

    Deviation sum() {
      Deviation all = NONE;
      for (int i = 0; i < LANES; i++) {
        all = all.plus(new Deviation(signals[i], noises[i], Float.intBitsToFloat(most[i])));
      }
      return all;
    }
  }
}
