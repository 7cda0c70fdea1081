package dev.gatun.kernel.vector;

import dev.gatun.Encoding;
import dev.gatun.Rounding;
import dev.gatun.kernel.codec.Codebooks;
import java.lang.foreign.MemorySegment;

/** {@link Rounding#round} in loops over float arrays, bit for bit. Working memory of one thread. */
final class Rounder {
  static final int PIECE = 1024;

  private final float[] values = new float[PIECE];
  private final float[] factors = new float[PIECE];
  private final byte[] codes = new byte[PIECE];
  private final short[] halves = new short[PIECE];
  private float[] table = {};
  private Encoding tableOf = Encoding.I8;

  void load(MemorySegment x, Encoding type, long index, int count) {
    Lanes.load(type, x, index, values, 0, count, halves);
  }

  void store(MemorySegment y, Encoding type, long index, int count) {
    Lanes.store(type, values, 0, count, y, index, halves);
  }

  /** {@code v = v · multiplier} in the type of v. */
  void multiply(MemorySegment multiplier, long first, int count, Encoding type) {
    MemorySegment.copy(multiplier, Lanes.FLOAT, 4 * first, factors, 0, count);
    for (int i = 0; i < count; i++) {
      values[i] *= factors[i];
    }
    Lanes.round(type, values, 0, count);
  }

  void round(Rounding rounding, Encoding type, int count) {
    float factor = rounding.factor(type);
    if (rounding.reciprocal()) {
      Lanes.multiply(values, 0, count, factor);
    } else {
      for (int i = 0; i < count; i++) {
        values[i] /= factor;
      }
    }
    Lanes.round(type, values, 0, count);
    Encoding encoding = rounding.encoding();
    float smallest = Rounding.smallest(encoding);
    float largest = Rounding.largest(encoding);
    for (int i = 0; i < count; i++) { // NaN stays
      values[i] = Math.max(smallest, Math.min(largest, values[i]));
    }
    if (encoding == Encoding.I8) {
      Lanes.toMultiples(values, 0, count, 1f);
    } else {
      decode(encoding, count);
    }
    for (int i = 0; i < count; i++) {
      values[i] *= rounding.scale();
    }
  }

  private void decode(Encoding encoding, int count) {
    if (table.length == 0 || tableOf != encoding) {
      table = Codebooks.table(encoding);
      tableOf = encoding;
    }
    Fp8Lanes.encode(encoding, values, count, codes);
    for (int i = 0; i < count; i++) {
      values[i] = table[codes[i] & 0xFF];
    }
  }
}
