package dev.gatun.kernel.codec;

import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/**
 * Arrays of numbers in memory, one byte or more each, little-endian and not necessarily aligned.
 */
public final class Numbers {
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private Numbers() {}

  /** Number {@code index} as a float. */
  public static float get(Encoding type, MemorySegment data, long index) {
    return switch (type.bits()) {
      case 32 -> data.get(FLOAT, 4 * index);
      case 16 -> {
        short bits = data.get(SHORT, 2 * index);
        yield type == Encoding.F16 ? HalfFloat.fromF16(bits) : HalfFloat.fromBf16(bits);
      }
      case 8 -> Codebooks.shared(type)[data.get(ValueLayout.JAVA_BYTE, index) & 0xFF];
      default -> throw new IllegalArgumentException(type + " is not a number of whole bytes");
    };
  }

  /** Stores a float as number {@code index}, rounded as the type's own cast does. */
  public static void put(Encoding type, MemorySegment data, long index, float value) {
    switch (type.bits()) {
      case 32 -> data.set(FLOAT, 4 * index, value);
      case 16 ->
          data.set(
              SHORT,
              2 * index,
              type == Encoding.F16 ? HalfFloat.toF16(value) : HalfFloat.toBf16(value));
      case 8 -> data.set(ValueLayout.JAVA_BYTE, index, (byte) Codebooks.encode(type, value));
      default -> throw new IllegalArgumentException(type + " is not a number of whole bytes");
    }
  }

  /** Stores a double as number {@code index} of F32, F16 or BF16 with a single rounding. */
  public static void put(Encoding type, MemorySegment data, long index, double value) {
    put(type, data, index, type == Encoding.F32 ? (float) value : HalfFloat.toOdd(value));
  }
}
