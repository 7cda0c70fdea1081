package dev.gatun.kernel.vector;

import dev.gatun.Encoding;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.codec.HalfFloat;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.IntVector;
import jdk.incubator.vector.ShortVector;
import jdk.incubator.vector.VectorMask;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorShape;
import jdk.incubator.vector.VectorSpecies;

/**
 * The vectors of this machine, and the steps that everything here is made of: loops over float
 * arrays, each with one operation, bit for bit what {@link HalfFloat} and plain float arithmetic
 * give.
 */
final class Lanes {
  static final VectorSpecies<Float> FLOATS = FloatVector.SPECIES_PREFERRED;
  static final VectorSpecies<Integer> INTS = VectorSpecies.of(int.class, FLOATS.vectorShape());

  /** As many shorts (bytes) as floats; bytes come at least 8 at a time. */
  static final VectorSpecies<Short> SHORTS =
      VectorSpecies.of(short.class, VectorShape.forBitSize(FLOATS.vectorBitSize() / 2));

  static final VectorSpecies<Byte> BYTES =
      VectorSpecies.of(
          byte.class, VectorShape.forBitSize(Math.max(64, FLOATS.vectorBitSize() / 4)));

  /** Floats in a vector. */
  static final int COUNT = FLOATS.length();

  static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private static final int INFINITY = 0x7F800000;
  private static final int NAN = 0x7FC00000;

  /** Adding and subtracting it rounds what is less than 2^22 to an integer, ties to even. */
  private static final float WHOLE = 0x1.8p23f;

  private Lanes() {}

  /** The bits of bfloat16 in the low half of each lane. */
  static IntVector bf16Bits(FloatVector v) {
    IntVector bits = v.reinterpretAsInts();
    VectorMask<Integer> nan = bits.and(0x7FFFFFFF).compare(VectorOperators.GT, INFINITY);
    return bits.add(0x7FFF)
        .add(bits.lanewise(VectorOperators.LSHR, 16).and(1))
        .lanewise(VectorOperators.LSHR, 16)
        .blend(0x7FC0, nan);
  }

  static FloatVector roundBf16(FloatVector v) {
    return bf16Bits(v).lanewise(VectorOperators.LSHL, 16).reinterpretAsFloats();
  }

  static FloatVector roundF16(FloatVector v) {
    IntVector bits = v.reinterpretAsInts();
    IntVector size = bits.and(0x7FFFFFFF);
    IntVector normal =
        size.add(0xFFF).add(size.lanewise(VectorOperators.LSHR, 13).and(1)).and(~0x1FFF);
    // Below 2^-14 the last place is 2^-24, as it is of numbers from 0.5 to 1.
    IntVector small = size.reinterpretAsFloats().add(0.5f).sub(0.5f).reinterpretAsInts();
    return normal
        .blend(INFINITY, normal.compare(VectorOperators.GE, 0x47800000))
        .blend(small, size.compare(VectorOperators.LT, 0x38800000))
        .blend(NAN, size.compare(VectorOperators.GT, INFINITY))
        .or(bits.and(0x80000000))
        .reinterpretAsFloats();
  }

  /** {@code a[i] = round(a[i])} to a plain type. */
  static void round(Encoding type, float[] a, int from, int to) {
    if (type == Encoding.F32) {
      return;
    }
    int i = from;
    int whole = from + FLOATS.loopBound(to - from);
    if (type == Encoding.BF16) {
      for (; i < whole; i += COUNT) {
        roundBf16(FloatVector.fromArray(FLOATS, a, i)).intoArray(a, i);
      }
    } else {
      for (; i < whole; i += COUNT) {
        roundF16(FloatVector.fromArray(FLOATS, a, i)).intoArray(a, i);
      }
    }
    for (; i < to; i++) {
      a[i] = HalfFloat.round(type, a[i]);
    }
  }

  /** {@code a[i] -= b}. */
  static void subtract(float[] a, int from, int to, float b) {
    for (int i = from; i < to; i++) {
      a[i] -= b;
    }
  }

  /** {@code a[i] *= b}. */
  static void multiply(float[] a, int from, int to, float b) {
    for (int i = from; i < to; i++) {
      a[i] *= b;
    }
  }

  /** {@code a[i] += b}. */
  static void add(float[] a, int from, int to, float b) {
    for (int i = from; i < to; i++) {
      a[i] += b;
    }
  }

  /** The largest magnitude; NaN when there is one. */
  static float largest(float[] a, int from, int to) {
    FloatVector most = FloatVector.zero(FLOATS);
    int whole = from + FLOATS.loopBound(to - from);
    for (int i = from; i < whole; i += COUNT) {
      most = most.max(FloatVector.fromArray(FLOATS, a, i).abs());
    }
    float result = most.reduceLanes(VectorOperators.MAX);
    for (int i = whole; i < to; i++) {
      result = Math.max(result, Math.abs(a[i]));
    }
    return result;
  }

  /** {@code a[i] = rint(a[i] / step) · step}, where no quotient is beyond ±2^22. */
  static void toMultiples(float[] a, int from, int to, float step) {
    for (int i = from; i < to; i++) {
      a[i] = (a[i] / step + WHOLE - WHOLE) * step;
    }
  }

  /** To the nearest integer of -127..127, ties to even; NaN stays. */
  static void toWhole(float[] a, int from, int to) {
    for (int i = from; i < to; i++) {
      a[i] = MatrixValues.whole(a[i]);
    }
  }

  /** Numbers {@code index ..} of a plain type as floats; {@code halves} is working memory. */
  static void load(
      Encoding type,
      MemorySegment data,
      long index,
      float[] out,
      int at,
      int count,
      short[] halves) {
    if (type == Encoding.F32) {
      MemorySegment.copy(data, FLOAT, 4 * index, out, at, count);
      return;
    }
    for (int done = 0; done < count; done += halves.length) {
      int part = Math.min(halves.length, count - done);
      MemorySegment.copy(data, SHORT, 2 * (index + done), halves, 0, part);
      widen(type, halves, out, at + done, part);
    }
  }

  private static void widen(Encoding type, short[] halves, float[] out, int at, int count) {
    int i = 0;
    int whole = FLOATS.loopBound(count);
    if (type == Encoding.F16) {
      for (; i < whole; i += COUNT) {
        IntVector bits =
            (IntVector)
                ShortVector.fromArray(SHORTS, halves, i)
                    .convertShape(VectorOperators.ZERO_EXTEND_S2I, INTS, 0);
        fromF16(bits).intoArray(out, at + i);
      }
    } else {
      for (; i < whole; i += COUNT) {
        ((IntVector)
                ShortVector.fromArray(SHORTS, halves, i)
                    .convertShape(VectorOperators.ZERO_EXTEND_S2I, INTS, 0))
            .lanewise(VectorOperators.LSHL, 16)
            .reinterpretAsFloats()
            .intoArray(out, at + i);
      }
    }
    for (; i < count; i++) {
      out[at + i] =
          type == Encoding.F16 ? HalfFloat.fromF16(halves[i]) : HalfFloat.fromBf16(halves[i]);
    }
  }

  /** The floats of binary16 bits in the low half of each lane. */
  private static FloatVector fromF16(IntVector bits) {
    IntVector size = bits.and(0x7FFF).lanewise(VectorOperators.LSHL, 13);
    IntVector normal = size.add(112 << 23);
    // Below the smallest normal number, 2^-14, the fraction counts from it.
    IntVector small = size.add(113 << 23).reinterpretAsFloats().sub(0x1p-14f).reinterpretAsInts();
    return normal
        .blend(size.add(224 << 23), size.compare(VectorOperators.GE, 0x7C00 << 13))
        .blend(small, size.compare(VectorOperators.LT, 0x400 << 13))
        .or(bits.and(0x8000).lanewise(VectorOperators.LSHL, 16))
        .reinterpretAsFloats();
  }

  /** Floats as numbers {@code index ..} of a plain type; {@code halves} is working memory. */
  static void store(
      Encoding type, float[] a, int at, int count, MemorySegment data, long index, short[] halves) {
    if (type == Encoding.F32) {
      MemorySegment.copy(a, at, data, FLOAT, 4 * index, count);
      return;
    }
    for (int done = 0; done < count; done += halves.length) {
      int part = Math.min(halves.length, count - done);
      narrow(type, a, at + done, halves, part);
      MemorySegment.copy(halves, 0, data, SHORT, 2 * (index + done), part);
    }
  }

  private static void narrow(Encoding type, float[] a, int at, short[] halves, int count) {
    int i = 0;
    if (type == Encoding.BF16) {
      for (int whole = FLOATS.loopBound(count); i < whole; i += COUNT) {
        ((ShortVector)
                bf16Bits(FloatVector.fromArray(FLOATS, a, at + i))
                    .convertShape(VectorOperators.I2S, SHORTS, 0))
            .intoArray(halves, i);
      }
      for (; i < count; i++) {
        halves[i] = HalfFloat.toBf16(a[at + i]);
      }
      return;
    }
    for (; i < count; i++) {
      halves[i] = Float.floatToFloat16(a[at + i]);
    }
    // NaN has one payload here
    for (i = 0; i < count; i++) {
      if (Float.isNaN(a[at + i])) {
        halves[i] = HalfFloat.toF16(a[at + i]);
      }
    }
  }
}
