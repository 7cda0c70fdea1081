package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Rounding;
import dev.gatun.bindings.gatun_cuda_rounding;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/** What a weight on a GPU does with x, and with y, beside what a call says. */
public final class CudaActivations {
  /** Nothing. */
  static final CudaActivations AS_THEY_ARE = new CudaActivations(0, null, null);

  /** From this magnitude on a column of x is multiplied apart, with compute type I8; 0: never. */
  private final float threshold;

  /** The {@code gatun_cuda_rounding} of x, or null. */
  private final @Nullable MemorySegment x;

  /** That of y, or null. */
  private final @Nullable MemorySegment y;

  private CudaActivations(float threshold, @Nullable MemorySegment x, @Nullable MemorySegment y) {
    this.threshold = threshold;
    this.x = x;
    this.y = y;
  }

  /** Columns of x with outliers are multiplied apart, with compute type I8: LLM.int8(). */
  static CudaActivations outliers(float threshold) {
    return new CudaActivations(threshold, null, null);
  }

  /**
   * Both are rounded with scales that were found beforehand, x instead of what a call's compute
   * type says.
   *
   * @param x after the multiplier
   * @param y before the epilogue; null: it is not rounded
   */
  public static CudaActivations rounded(Rounding x, @Nullable Rounding y) {
    return new CudaActivations(0, struct(x), y == null ? null : struct(y));
  }

  private static MemorySegment struct(Rounding rounding) {
    MemorySegment struct = gatun_cuda_rounding.allocate(Arena.ofAuto());
    gatun_cuda_rounding.encoding(struct, rounding.encoding().id());
    gatun_cuda_rounding.reciprocal(struct, rounding.reciprocal() ? 1 : 0);
    gatun_cuda_rounding.scale(struct, rounding.scale());
    return struct;
  }

  float threshold() {
    return threshold;
  }

  @Nullable MemorySegment x() {
    return x;
  }

  MemorySegment yOrNull() {
    return y == null ? MemorySegment.NULL : y;
  }

  /** Whether a call's columns with outliers are multiplied apart. */
  boolean takesApart(LinearCall<?> call) {
    return takesApart(call.compute()) && !call.isRounded() && call.xScales() == null;
  }

  private boolean takesApart(Compute compute) {
    return threshold > 0 && compute == Compute.I8;
  }

  /** What the name of the kernel that multiplies is followed by. */
  String suffix(Compute compute) {
    return x != null ? "+static" : takesApart(compute) ? "+outliers" : "";
  }
}
