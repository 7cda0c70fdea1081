package dev.gatun.kernel.codec;

import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/** The largest magnitude of a run of numbers: bits without their sign are ordered as integers. */
public final class Magnitudes {
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private Magnitudes() {}

  /**
   * The largest magnitude; NaN when one is NaN, 0 of no numbers.
   *
   * @param type F32, F16 or BF16
   * @param data numbers of that type without gaps
   * @param first index of the first number
   */
  public static float largest(Encoding type, MemorySegment data, long first, long count) {
    int largest = 0;
    if (type == Encoding.F32) {
      MemorySegment run = data.asSlice(first * Float.BYTES, count * Float.BYTES);
      for (long i = 0; i < count; i++) {
        largest = Math.max(largest, run.get(INT, i * Float.BYTES) & 0x7FFFFFFF);
      }
      return Float.intBitsToFloat(largest);
    }
    MemorySegment run = data.asSlice(first * Short.BYTES, count * Short.BYTES);
    for (long i = 0; i < count; i++) {
      largest = Math.max(largest, run.get(SHORT, i * Short.BYTES) & 0x7FFF);
    }
    return type == Encoding.BF16
        ? Float.intBitsToFloat(largest << 16)
        : Float.float16ToFloat((short) largest);
  }

  /**
   * Whether there is a subnormal number.
   *
   * @param type F32 or BF16, whose subnormals are the same
   * @param data numbers of that type without gaps
   */
  public static boolean hasSubnormal(Encoding type, MemorySegment data, long count) {
    // One less than a magnitude: of zero it is the largest integer there is.
    int least = Integer.MAX_VALUE;
    if (type == Encoding.F32) {
      for (long i = 0; i < count; i++) {
        int magnitude = data.get(INT, i * Float.BYTES) & 0x7FFFFFFF;
        least = Math.min(least, (magnitude - 1) & 0x7FFFFFFF);
      }
      return least < 0x7FFFFF;
    }
    for (long i = 0; i < count; i++) {
      int magnitude = data.get(SHORT, i * Short.BYTES) & 0x7FFF;
      least = Math.min(least, (magnitude - 1) & 0x7FFFFFFF);
    }
    return least < 0x7F;
  }
}
