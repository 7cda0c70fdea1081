package dev.gatun.kernel.codec;

import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.EnumMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Where the codes, scales and minima of GGUF's simple blocks lie, for writing them one by one:
 * number = level(code) · scale + minimum. Source: ggml-common.h.
 */
public final class GgufCodes {
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private static final int NOWHERE = -1;
  private static final Map<Encoding, GgufCodes> ALL = new EnumMap<>(Encoding.class);

  static {
    put(Encoding.Q4_0, Encoding.U4, 8, Encoding.F16, NOWHERE, NOWHERE, 2, 32);
    put(Encoding.Q4_1, Encoding.U4, 0, Encoding.F16, 2, NOWHERE, 4, 32);
    put(Encoding.Q5_0, Encoding.U5, 16, Encoding.F16, NOWHERE, 2, 6, 32);
    put(Encoding.Q5_1, Encoding.U5, 0, Encoding.F16, 2, 4, 8, 32);
    put(Encoding.Q8_0, Encoding.I8, 0, Encoding.F16, NOWHERE, NOWHERE, 2, 32);
    put(Encoding.MXFP4, Encoding.F4_E2M1, 0, Encoding.F8_E8M0, NOWHERE, NOWHERE, 1, 32);
    put(Encoding.NVFP4, Encoding.F4_E2M1, 0, Encoding.F8_E4M3, NOWHERE, NOWHERE, 4, 16);
    ALL.put(
        Encoding.IQ4_NL, new GgufCodes(GgufBlocks.iq4(), Encoding.F16, NOWHERE, NOWHERE, 2, 32));
  }

  private static void put(
      Encoding blocks,
      Encoding codes,
      int zero,
      Encoding scaleType,
      int minimumAt,
      int highBitsAt,
      int codesAt,
      int group) {
    float[] levels = Codebooks.table(codes);
    for (int i = 0; i < levels.length; i++) {
      levels[i] -= zero;
    }
    ALL.put(blocks, new GgufCodes(levels, scaleType, minimumAt, highBitsAt, codesAt, group));
  }

  private final float[] levels;
  private final Encoding scaleType;
  private final int minimumAt;
  private final int highBitsAt;
  private final int codesAt;
  private final int group;

  private GgufCodes(
      float[] levels, Encoding scaleType, int minimumAt, int highBitsAt, int codesAt, int group) {
    this.levels = levels;
    this.scaleType = scaleType;
    this.minimumAt = minimumAt;
    this.highBitsAt = highBitsAt;
    this.codesAt = codesAt;
    this.group = group;
  }

  /** Of a block encoding; null when its codes cannot be written one by one. */
  public static @Nullable GgufCodes of(Encoding encoding) {
    return ALL.get(encoding);
  }

  /** What each code stands for before it is scaled; a copy. */
  public float[] levels() {
    return levels.clone();
  }

  /** Consecutive weights that share a scale. */
  public int group() {
    return group;
  }

  /** Whether something is added after scaling. */
  public boolean hasMinimum() {
    return minimumAt != NOWHERE;
  }

  /**
   * Stores the scale of the group that an element of a block is in.
   *
   * @param at the block's first byte
   * @return what is stored: {@code scale} rounded to the block's type
   */
  public float putScale(MemorySegment blocks, long at, int element, float scale) {
    long index = at + (scaleType == Encoding.F16 ? 0 : element / group);
    Numbers.put(scaleType, blocks.asSlice(index), 0, scale);
    if (scaleType == Encoding.F8_E4M3) { // without a sign, and what stands for NaN is 0
      return GgufBlocks.ue4m3(blocks.get(ValueLayout.JAVA_BYTE, index));
    }
    return Numbers.get(scaleType, blocks.asSlice(index), 0);
  }

  /** Stores the minimum; gives what is stored. */
  public float putMinimum(MemorySegment blocks, long at, float minimum) {
    short bits = HalfFloat.toF16(minimum);
    blocks.set(SHORT, at + minimumAt, bits);
    return HalfFloat.fromF16(bits);
  }

  /** Stores the code of an element. */
  public void putCode(MemorySegment blocks, long at, int element, int code) {
    if (levels.length > 32) {
      blocks.set(ValueLayout.JAVA_BYTE, at + codesAt + element, (byte) code);
      return;
    }
    // The first half of a group lies in the low nibbles, the second in the high ones.
    int inGroup = element % group;
    long byteAt = at + codesAt + element / group * (group / 2) + inGroup % (group / 2);
    int shift = inGroup < group / 2 ? 0 : 4;
    int others = blocks.get(ValueLayout.JAVA_BYTE, byteAt) & ~(15 << shift);
    blocks.set(ValueLayout.JAVA_BYTE, byteAt, (byte) (others | (code & 15) << shift));
    if (highBitsAt != NOWHERE) {
      int bits = blocks.get(INT, at + highBitsAt) & ~(1 << element);
      blocks.set(INT, at + highBitsAt, bits | (code >> 4 & 1) << element);
    }
  }
}
