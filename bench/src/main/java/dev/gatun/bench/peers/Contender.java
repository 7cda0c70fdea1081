package dev.gatun.bench.peers;

import java.lang.foreign.MemorySegment;

/** One engine with one layer, in as many copies as the measurement needs. Not thread-safe. */
interface Contender extends AutoCloseable {
  /** {@code gatun} or the peer's name. */
  String engine();

  /** What runs for so many rows: our kernel's name, or the peer's operator. */
  String kernel(int m);

  /** How many copies of the layer one {@link #run} goes through. */
  int copies();

  /**
   * Multiplies x by every copy of the weight, one after the other.
   *
   * @param x M × K floats in native memory
   */
  void run(MemorySegment x, int m);

  /** Multiplies once and gives the first copy's output: M × N floats. */
  float[] output(MemorySegment x, int m);

  /** Puts threads to sleep that would otherwise wait for work while other engines are measured. */
  default void rest() {}

  @Override
  void close();
}
