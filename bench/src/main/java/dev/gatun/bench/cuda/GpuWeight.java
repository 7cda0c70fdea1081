package dev.gatun.bench.cuda;

import dev.gatun.Encoding;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Optional;
import java.util.SplittableRandom;

/** The weights that are timed, as the formats that use them lay them out. */
enum GpuWeight {
  INT4("int4 g128", Encoding.U4),
  NF4("nf4", Encoding.NF4),
  Q4_0("q4_0", Encoding.Q4_0),
  MXFP4("mxfp4", Encoding.MXFP4),
  Q4_K("q4_k", Encoding.Q4_K),
  E4M3("e4m3", Encoding.F8_E4M3),
  I8("i8", Encoding.I8);

  private final String label;
  private final Encoding encoding;

  GpuWeight(String label, Encoding encoding) {
    this.label = label;
    this.encoding = encoding;
  }

  String label() {
    return label;
  }

  /** How {@code bench/cuda/bench.py} calls it where it is quantized to. */
  String quantizedLabel() {
    return this == E4M3 ? "e4m3 rows" : label;
  }

  Encoding encoding() {
    return encoding;
  }

  /** Random codes, with scales of about one hundredth, in the arena's memory. */
  Matrix random(long n, long k, Arena arena, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    if (encoding.isBlock()) {
      long blocks = n * k / encoding.blockElements();
      MemorySegment codes = arena.allocate(blocks * encoding.blockBytes(), 64);
      fill(codes, false, random);
      for (long i = 0; i < blocks; i++) {
        blockScale(codes, i * encoding.blockBytes());
      }
      return Matrix.builder(n, k, encoding, codes).build();
    }
    MemorySegment codes = arena.allocate(n * k * encoding.bits() / 8, 64);
    fill(codes, this == E4M3, random);
    Granularity granularity =
        switch (this) {
          case NF4 -> new Granularity.Flat(64);
          case INT4 -> Granularity.perGroup(k, 128);
          default -> Granularity.perChannel(k);
        };
    Encoding scaleType = this == INT4 ? Encoding.BF16 : Encoding.F32;
    long count = granularity.index(n - 1, k - 1, k) + 1;
    MemorySegment scales = arena.allocate(count * (scaleType.bits() / 8), 64);
    for (long i = 0; i < count; i++) {
      Numbers.put(scaleType, scales, i, (float) (0.02 * random.nextDouble()));
    }
    Matrix.Builder matrix =
        Matrix.builder(n, k, encoding, codes)
            .granularity(granularity)
            .scales(new Matrix.Values(scaleType, scales))
            .result(Encoding.BF16);
    return switch (this) {
      case NF4 -> matrix.codeOrder(CodeOrder.HIGH_FIRST).build();
      case INT4 -> matrix.zeroPoint(8).build();
      default -> matrix.build();
    };
  }

  private void blockScale(MemorySegment codes, long at) {
    switch (this) {
      case MXFP4 -> codes.set(ValueLayout.JAVA_BYTE, at, (byte) 120);
      case Q4_K -> {
        codes.set(ValueLayout.JAVA_SHORT_UNALIGNED, at, Float.floatToFloat16(0.001f));
        codes.set(ValueLayout.JAVA_SHORT_UNALIGNED, at + 2, Float.floatToFloat16(0.001f));
      }
      default -> codes.set(ValueLayout.JAVA_SHORT_UNALIGNED, at, Float.floatToFloat16(0.01f));
    }
  }

  /**
   * Any codes.
   *
   * @param finite of F8_E4M3: the largest number in place of NaN
   */
  private static void fill(MemorySegment codes, boolean finite, SplittableRandom random) {
    long at = 0;
    for (; at + Long.BYTES <= codes.byteSize(); at += Long.BYTES) {
      long word = random.nextLong();
      codes.set(ValueLayout.JAVA_LONG_UNALIGNED, at, finite ? withoutNan(word) : word);
    }
    for (; at < codes.byteSize(); at++) {
      long word = random.nextLong();
      codes.set(ValueLayout.JAVA_BYTE, at, (byte) (finite ? withoutNan(word) : word));
    }
  }

  /** Clears the last bit of those of eight codes whose exponent and mantissa are all ones. */
  private static long withoutNan(long word) {
    long ones = 0x0101_0101_0101_0101L;
    long nan = ((word & 0x7F * ones) + ones) >>> 7 & ones;
    return word & ~nan;
  }

  /** Floats of about one hundredth. */
  static MemorySegment scales(long count, Arena arena) {
    SplittableRandom random = new SplittableRandom(7);
    MemorySegment values = arena.allocate(count * Float.BYTES, 64);
    for (long i = 0; i < count; i++) {
      values.setAtIndex(ValueLayout.JAVA_FLOAT, i, (float) (0.02 * random.nextDouble()));
    }
    return values;
  }

  /** BF16 numbers between -2 and 2. */
  static MemorySegment activations(long count, Arena arena) {
    SplittableRandom random = new SplittableRandom(9);
    MemorySegment values = arena.allocate(count * Short.BYTES, 64);
    for (long i = 0; i < count; i++) {
      int bits = Float.floatToRawIntBits((float) random.nextDouble(-2, 2));
      values.set(ValueLayout.JAVA_SHORT, i * Short.BYTES, (short) (bits >>> 16));
    }
    return values;
  }

  /** Bytes of codes and parameters. */
  static long byteSize(Matrix matrix) {
    return matrix.memory().values().stream().mapToLong(MemorySegment::byteSize).sum();
  }

  /** How this encoding is quantized to; empty for what is not timed. */
  Optional<QuantizeRule> rule() {
    return switch (this) {
      case NF4 -> Optional.of(rule(1, Float.NEGATIVE_INFINITY, Float.POSITIVE_INFINITY));
      case I8 -> Optional.of(rule(127, -128, 127));
      case E4M3 -> Optional.of(rule(448, -448, 448));
      default -> Optional.empty();
    };
  }

  private static QuantizeRule rule(float divisor, float min, float max) {
    return new QuantizeRule(Encoding.F32, divisor == 1, divisor, 0, min, max, false, 0);
  }
}
