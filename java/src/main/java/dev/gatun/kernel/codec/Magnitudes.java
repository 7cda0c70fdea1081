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

  /** Few enough for an index that is an integer, as the compiler wants it to make vectors. */
  private static final long AT_ONCE = 1 << 24;

  private Magnitudes() {}

  /**
   * The largest magnitude; NaN when one is NaN, 0 of no numbers.
   *
   * @param type F32, F16 or BF16
   * @param data numbers of that type without gaps
   * @param first index of the first number
   */
  public static float largest(Encoding type, MemorySegment data, long first, long count) {
    long width = type.bits() / Byte.SIZE;
    int largest = 0;
    for (long done = 0, step; done < count; done += step) {
      step = Math.min(AT_ONCE, count - done);
      MemorySegment run = data.asSlice((first + done) * width, step * width);
      int bits = type == Encoding.F32 ? ofInts(run, (int) step) : ofShorts(run, (int) step);
      largest = Math.max(largest, bits);
    }
    return switch (type) {
      case F32 -> Float.intBitsToFloat(largest);
      case BF16 -> Float.intBitsToFloat(largest << 16);
      default -> Float.float16ToFloat((short) largest);
    };
  }

  private static int ofInts(MemorySegment run, int count) {
    int largest = 0;
    for (int i = 0; i < count; i++) {
      largest = Math.max(largest, run.get(INT, (long) i * Float.BYTES) & 0x7FFFFFFF);
    }
    return largest;
  }

  /** Two at a time, as the halves of an integer: the compiler makes vectors of those alone. */
  private static int ofShorts(MemorySegment run, int count) {
    int low = 0;
    int high = 0;
    for (int i = 0; i < count / 2; i++) {
      int two = run.get(INT, (long) i * Integer.BYTES);
      low = Math.max(low, two << 16 & 0x7FFFFFFF);
      high = Math.max(high, two & 0x7FFFFFFF);
    }
    int largest = Math.max(low, high) >> 16;
    int last = count % 2 == 0 ? 0 : run.get(SHORT, (count - 1L) * Short.BYTES) & 0x7FFF;
    return Math.max(largest, last);
  }

  /**
   * Whether there is a subnormal number.
   *
   * @param type F32 or BF16, whose subnormals are the same
   * @param data numbers of that type without gaps
   */
  public static boolean hasSubnormal(Encoding type, MemorySegment data, long count) {
    long width = type.bits() / Byte.SIZE;
    // One less than a magnitude's bits as a float: of zero it is the largest integer there is.
    int least = Integer.MAX_VALUE;
    for (long done = 0, step; done < count; done += step) {
      step = Math.min(AT_ONCE, count - done);
      MemorySegment run = data.asSlice(done * width, step * width);
      int some = type == Encoding.F32 ? leastOfInts(run, (int) step) : leastOfBf16(run, (int) step);
      least = Math.min(least, some);
    }
    return least < 0x7FFFFF;
  }

  private static int leastOfInts(MemorySegment run, int count) {
    int least = Integer.MAX_VALUE;
    for (int i = 0; i < count; i++) {
      least = Math.min(least, below(run.get(INT, (long) i * Float.BYTES)));
    }
    return least;
  }

  private static int leastOfBf16(MemorySegment run, int count) {
    int low = Integer.MAX_VALUE;
    int high = Integer.MAX_VALUE;
    for (int i = 0; i < count / 2; i++) {
      int two = run.get(INT, (long) i * Integer.BYTES);
      low = Math.min(low, below(two << 16));
      high = Math.min(high, below(two & 0xFFFF0000));
    }
    int last =
        count % 2 == 0
            ? Integer.MAX_VALUE
            : below(run.get(SHORT, (count - 1L) * Short.BYTES) << 16);
    return Math.min(Math.min(low, high), last);
  }

  private static int below(int bits) {
    return ((bits & 0x7FFFFFFF) - 1) & 0x7FFFFFFF;
  }
}
