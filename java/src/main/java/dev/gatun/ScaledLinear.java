package dev.gatun;

import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.jspecify.annotations.Nullable;

/**
 * A linear layer whose input is multiplied by one number per feature first: {@code x'[m][k] =
 * float(x[m][k] · multiplier[k])}. The products of a few rows at a time go to memory that is kept
 * for the next call.
 */
final class ScaledLinear implements Linear {
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final int KEPT = 16;
  private static final int ROWS = 32;

  private final Linear linear;
  private final float[] multiplier;
  private final Arena arena = Arena.ofAuto(); // outlives the calls that close() does not wait for
  private final AtomicReferenceArray<@Nullable MemorySegment> kept =
      new AtomicReferenceArray<>(KEPT);

  ScaledLinear(Linear linear, Tensor multiplier) {
    this.linear = linear;
    this.multiplier = new float[Math.toIntExact(linear.inFeatures())];
    Encoding type = multiplier.dtype().encoding().orElseThrow();
    for (int i = 0; i < this.multiplier.length; i++) {
      this.multiplier[i] = Numbers.get(type, multiplier.data(), i);
    }
  }

  @Override
  public long outFeatures() {
    return linear.outFeatures();
  }

  @Override
  public long inFeatures() {
    return linear.inFeatures();
  }

  @Override
  public String kernel(long m) {
    return linear.kernel(m);
  }

  @Override
  public Compute compute() {
    return linear.compute();
  }

  @Override
  public void forward(MemorySegment x, long m, MemorySegment y) {
    forward(x, Encoding.F32, inFeatures(), m, y, Encoding.F32, outFeatures());
  }

  @Override
  public void forward(
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy) {
    long n = outFeatures();
    int k = multiplier.length;
    Objects.requireNonNull(x, "x");
    Objects.requireNonNull(y, "y");
    PackedLinear.checkOperands(n, k, x, xType, ldx, m, y, yType, ldy);
    MemorySegment scratch = take();
    try {
      for (long row = 0; row < m; row += ROWS) {
        int rows = (int) Math.min(ROWS, m - row);
        for (int i = 0; i < rows; i++) {
          for (int j = 0; j < k; j++) {
            float v = Numbers.get(xType, x, (row + i) * ldx + j) * multiplier[j];
            scratch.set(FLOAT, 4 * ((long) i * k + j), v);
          }
        }
        MemorySegment out = y.asSlice(row * ldy * (yType.bits() / 8));
        linear.forward(scratch, Encoding.F32, k, rows, out, yType, ldy);
      }
    } finally {
      give(scratch);
    }
  }

  private MemorySegment take() {
    for (int i = 0; i < KEPT; i++) {
      MemorySegment scratch = kept.getAndSet(i, null);
      if (scratch != null) {
        return scratch;
      }
    }
    return arena.allocate(Math.max(1L, 4L * ROWS * multiplier.length), 64);
  }

  private void give(MemorySegment scratch) {
    for (int i = 0; i < KEPT; i++) {
      if (kept.compareAndSet(i, null, scratch)) {
        return;
      }
    }
  }

  @Override
  public void close() {
    linear.close();
  }
}
