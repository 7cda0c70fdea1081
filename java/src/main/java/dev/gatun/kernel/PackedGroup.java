package dev.gatun.kernel;

import java.lang.foreign.MemorySegment;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Packed weights of one shape, each for a run of rows of its own: the experts of a mixture. Made by
 * {@link Backend#group}.
 */
public interface PackedGroup extends AutoCloseable {
  /**
   * One of the weights.
   *
   * @param bias N floats in native memory, or null
   * @param multiplier K floats in native memory, by which its rows of x are multiplied, or null
   */
  record Expert(
      PackedWeight packed, @Nullable MemorySegment bias, @Nullable MemorySegment multiplier) {
    /** Refuses null for the weight. */
    public Expert {
      Objects.requireNonNull(packed, "packed");
    }
  }

  /**
   * {@link Backend#linear} of rows {@code offsets[e] .. offsets[e+1]-1} of x, y and other with
   * expert e, for all of them. Safe for concurrent callers, each with a call of its own.
   *
   * @param call whose m is the last offset; bias and multiplier are the experts'
   * @param offsets one more than there are experts, from 0 on, none below the one before
   */
  void linear(LinearCall<MemorySegment> call, long[] offsets);

  /** Frees what the group itself needs; the weights stay. A second call does nothing. */
  @Override
  void close();
}
