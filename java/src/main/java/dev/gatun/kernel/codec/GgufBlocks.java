package dev.gatun.kernel.codec;

import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;

/** GGUF's self-contained blocks: scales and codes of one run of a row, decoded as ggml does. */
public final class GgufBlocks {
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private GgufBlocks() {}

  /** Whether blocks of this encoding are decoded. */
  public static boolean decodes(Encoding encoding) {
    return switch (encoding) {
      case Q4_0, Q8_0 -> true;
      default -> false;
    };
  }

  /**
   * The numbers of one block.
   *
   * @param at the block's first byte
   * @param out receives {@link Encoding#blockElements()} numbers from index 0 on
   * @throws IllegalArgumentException when {@link #decodes} says no
   */
  public static void decode(Encoding encoding, MemorySegment data, long at, float[] out) {
    float d = HalfFloat.fromF16(data.get(SHORT, at));
    switch (encoding) {
      case Q4_0 -> {
        for (int j = 0; j < 16; j++) {
          int q = data.get(ValueLayout.JAVA_BYTE, at + 2 + j) & 0xFF;
          out[j] = ((q & 15) - 8) * d;
          out[j + 16] = ((q >> 4) - 8) * d;
        }
      }
      case Q8_0 -> {
        for (int j = 0; j < 32; j++) {
          out[j] = data.get(ValueLayout.JAVA_BYTE, at + 2 + j) * d;
        }
      }
      default -> throw new IllegalArgumentException(encoding + " has no block decoder");
    }
  }
}
