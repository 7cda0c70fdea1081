package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.COUNT;
import static dev.gatun.kernel.vector.Lanes.FLOATS;

import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;

/** A table of 16 floats in one vector register of 512 bits, or in two of 256. */
final class Nibbles {
  /** Whether the table fits into registers; where it does not, codes are looked up one by one. */
  static final boolean FAST = COUNT == 16 || COUNT == 8;

  private Nibbles() {}

  /** The first vector of the table. */
  static IntVector low(float[] table) {
    return FloatVector.fromArray(FLOATS, table, 0).reinterpretAsInts();
  }

  /** The second vector of the table; with 512 bits it has none and this is not looked at. */
  static IntVector high(float[] table) {
    return FloatVector.fromArray(FLOATS, table, COUNT == 8 ? 8 : 0).reinterpretAsInts();
  }

  /** What the low four bits of each lane mean. */
  static FloatVector lookup(IntVector codes, IntVector low, IntVector high) {
    // Indices wrap, so that the other bits need not be cleared.
    return (COUNT == 8 ? codes.selectFrom(low, high) : codes.selectFrom(low)).reinterpretAsFloats();
  }
}
