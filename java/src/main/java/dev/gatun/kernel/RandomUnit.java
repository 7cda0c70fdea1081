package dev.gatun.kernel;

/**
 * Numbers of [0, 1) by index: what an element draws does not depend on the order or the threads in
 * which elements are worked on. SplitMix64's output function (Steele, Lea, Flood 2014) of a
 * counter.
 */
final class RandomUnit {
  private static final long STEP = 0x9E3779B97F4A7C15L;

  private RandomUnit() {}

  static long mix(long z) {
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }

  /** The seed with which index 0 draws what {@code index} draws with this one. */
  static long after(long seed, long index) {
    return seed + index * STEP;
  }

  static double at(long seed, long index) {
    return (mix(seed + (index + 1) * STEP) >>> 11) * 0x1p-53;
  }
}
