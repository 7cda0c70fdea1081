package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.BYTES;
import static dev.gatun.kernel.vector.Lanes.COUNT;
import static dev.gatun.kernel.vector.Lanes.FLOATS;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Fp8;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.VectorOperators;

/** {@link Fp8#encode} in vectors, bit for bit. */
final class Fp8Lanes {
  private static final int INFINITY = 0x7F800000;

  private Fp8Lanes() {}

  /** The codes of {@code count} floats. */
  static void encode(Encoding type, float[] a, int count, byte[] out) {
    int i = 0;
    if (type != Encoding.F8_E8M0 && BYTES.length() == COUNT) {
      boolean fnuz = type == Encoding.F8_E4M3FNUZ || type == Encoding.F8_E5M2FNUZ;
      boolean four = type == Encoding.F8_E4M3 || type == Encoding.F8_E4M3FNUZ;
      int fraction = four ? 3 : 2;
      int bias = (four ? 7 : 15) + (fnuz ? 1 : 0);
      int largest = fnuz ? 0x7F : four ? 0x7E : 0x7B;
      for (int whole = FLOATS.loopBound(count); i < whole; i += COUNT) {
        IntVector bits = FloatVector.fromArray(FLOATS, a, i).reinterpretAsInts();
        IntVector size = magnitude(bits.and(0x7FFFFFFF), fraction, bias);
        IntVector sign = bits.lanewise(VectorOperators.LSHR, 24).and(0x80);
        IntVector code = fnuz ? fnuz(size, sign) : signed(size, sign, largest, bits);
        ((ByteVector) code.convertShape(VectorOperators.I2B, BYTES, 0)).intoArray(out, i);
      }
    }
    for (; i < count; i++) {
      out[i] = (byte) Fp8.encode(type, a[i]);
    }
  }

  /**
   * The code of a positive number, rounded to nearest even; beyond the largest it goes on rising.
   */
  private static IntVector magnitude(IntVector size, int fraction, int bias) {
    int drop = 23 - fraction;
    IntVector normal =
        size.add((1 << drop - 1) - 1)
            .add(size.lanewise(VectorOperators.LSHR, drop).and(1))
            .lanewise(VectorOperators.LSHR, drop)
            .sub(127 - bias << fraction);
    // The last place of this number is that of the type's subnormal ones.
    float unit = Math.scalb(1f, 1 - bias + drop);
    IntVector small =
        size.reinterpretAsFloats().add(unit).reinterpretAsInts().sub(Float.floatToRawIntBits(unit));
    return normal.blend(small, size.compare(VectorOperators.LT, 128 - bias << 23));
  }

  /** Too large is infinity, or NaN where there is none; NaN keeps its sign. */
  private static IntVector signed(IntVector size, IntVector sign, int largest, IntVector bits) {
    return size.min(largest + 1)
        .blend(0x7F, bits.and(0x7FFFFFFF).compare(VectorOperators.GT, INFINITY))
        .or(sign);
  }

  /** There is one zero, and one NaN in place of the other. */
  private static IntVector fnuz(IntVector size, IntVector sign) {
    return size.or(sign)
        .blend(0, size.compare(VectorOperators.EQ, 0))
        .blend(0x80, size.compare(VectorOperators.GT, 0x7F));
  }
}
