package dev.gatun;

import java.lang.foreign.MemorySegment;

/** One linear layer, packed for one device: y = x · Wᵀ + b. Thread-safe; {@code forward} allocates nothing. */
public interface Linear extends AutoCloseable {
  /** N: output features. */
  long outFeatures();

  /** K: input features. */
  long inFeatures();

  /** The name of the kernel that runs for this many rows. */
  String kernel(long m);

  /** What the multiply is done in. */
  Compute compute();

  /**
   * y = x · Wᵀ + b in floats.
   *
   * @param x M × K floats, row-major, in native memory or a heap array
   * @param m rows of x, at least 1
   * @param y M × N floats, row-major; must not overlap x
   * @throws IndexOutOfBoundsException when x or y is too short
   * @throws IllegalStateException when this layer is closed
   */
  void forward(MemorySegment x, long m, MemorySegment y);

  /** The same with other types of x and y (F32, F16, BF16) and rows {@code ldx} and {@code ldy} elements apart. */
  void forward(MemorySegment x, Encoding xType, long ldx, long m, MemorySegment y, Encoding yType, long ldy);

  /** Frees the packed weight. A second call does nothing. */
  @Override
  void close();
}
