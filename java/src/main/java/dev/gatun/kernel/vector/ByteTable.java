package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.COUNT;
import static dev.gatun.kernel.vector.Tiles.WIDTH;

import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;
import org.jspecify.annotations.Nullable;

/**
 * A table of 256 floats whose lower halves are zero, as all 8-bit floats are, in eight vectors: the
 * highest byte of each, and the second highest. A 512-bit byte permute of two vectors looks up 64
 * codes in 128 entries.
 */
final class ByteTable {
  private static final boolean FAST = COUNT == 16;
  private static final int VECTOR = 64;

  private final byte[] high = new byte[256];
  private final byte[] low = new byte[256];

  private ByteTable(float[] table) {
    for (int i = 0; i < table.length; i++) {
      int bits = Float.floatToRawIntBits(table[i]);
      high[i] = (byte) (bits >>> 24);
      low[i] = (byte) (bits >>> 16);
    }
  }

  /** The table in vectors; null when this machine's are too short or the numbers too long. */
  static @Nullable ByteTable of(float[] table) {
    boolean possible = FAST && table.length == 256;
    for (float value : table) {
      possible &= (Float.floatToRawIntBits(value) & 0xFFFF) == 0;
    }
    return possible ? new ByteTable(table) : null;
  }

  private static ByteVector lookup(byte[] plane, ByteVector codes, VectorMask<Byte> upper) {
    ByteVector a = ByteVector.fromArray(ByteVector.SPECIES_512, plane, 0);
    ByteVector b = ByteVector.fromArray(ByteVector.SPECIES_512, plane, VECTOR);
    ByteVector c = ByteVector.fromArray(ByteVector.SPECIES_512, plane, 2 * VECTOR);
    ByteVector d = ByteVector.fromArray(ByteVector.SPECIES_512, plane, 3 * VECTOR);
    return codes.selectFrom(a, b).blend(codes.selectFrom(c, d), upper);
  }

  /**
   * What the codes [k/4][WIDTH][4] mean times {@code scale} [WIDTH] into {@code out} [k][WIDTH]
   * from {@code first} on, which has room for the last four k.
   */
  void lookup(MemorySegment codes, long at, int k, float[] scale, float[] out, int first) {
    for (int lane = 0; lane < WIDTH; lane += COUNT) {
      FloatVector s = FloatVector.fromArray(Lanes.FLOATS, scale, lane);
      for (int i = 0; i < k; i += 4) {
        long word = at + 4L * (i / 4 * WIDTH + lane);
        ByteVector code =
            ByteVector.fromMemorySegment(
                ByteVector.SPECIES_512, codes, word, ByteOrder.LITTLE_ENDIAN);
        VectorMask<Byte> upper = code.compare(VectorOperators.LT, (byte) 0);
        IntVector h = lookup(high, code, upper).reinterpretAsInts();
        IntVector l = lookup(low, code, upper).reinterpretAsInts();
        int to = first + i * WIDTH + lane;
        put(left(h, 24).or(left(l.and(0xFF), 16)), s, out, to);
        put(left(h.and(0xFF00), 16).or(left(l.and(0xFF00), 8)), s, out, to + WIDTH);
        put(left(h.and(0xFF0000), 8).or(l.and(0xFF0000)), s, out, to + 2 * WIDTH);
        IntVector second = l.lanewise(VectorOperators.LSHR, 8).and(0xFF0000);
        put(h.and(0xFF000000).or(second), s, out, to + 3 * WIDTH);
      }
    }
  }

  private static IntVector left(IntVector v, int bits) {
    return v.lanewise(VectorOperators.LSHL, bits);
  }

  private static void put(IntVector bits, FloatVector scale, float[] out, int at) {
    bits.reinterpretAsFloats().mul(scale).intoArray(out, at);
  }
}
