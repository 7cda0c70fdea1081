package dev.gatun.bench.jmh;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.layout.Layout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.SplittableRandom;

/** Weights for benchmarks, with the scales that the encodings usually have. */
final class RandomWeights {
  private record RandomLayout(Encoding encoding) implements Layout {
    @Override
    public String name() {
      return "random." + encoding.name().toLowerCase(Locale.ROOT);
    }

    @Override
    public String describe() {
      return "random codes of " + encoding;
    }
  }

  private RandomWeights() {}

  /** Floats between -1 and 1. */
  static MemorySegment floats(long count, Arena arena) {
    SplittableRandom random = new SplittableRandom(3);
    MemorySegment values = arena.allocate(count * Float.BYTES, 64);
    for (long i = 0; i < count; i++) {
      values.setAtIndex(ValueLayout.JAVA_FLOAT, i, (float) (2 * random.nextDouble() - 1));
    }
    return values;
  }

  /** An N × K matrix without anything in it. */
  static Matrix empty(Encoding encoding, long n, long k, Arena arena) {
    MemorySegment codes = arena.allocate(n * k * encoding.bits() / 8, 64);
    Matrix.Builder matrix = Matrix.builder(n, k, encoding, codes);
    if (encoding.isPlain()) {
      return matrix.granularity(Granularity.perTensor(n, k)).build();
    }
    Granularity granularity =
        switch (encoding) {
          case NF4, FP4 -> new Granularity.Flat(64);
          case U4, I4 -> Granularity.perGroup(k, 32);
          case I8, U8 -> Granularity.perChannel(k);
          default -> Granularity.perTensor(n, k);
        };
    MemorySegment scales =
        arena.allocate((granularity.index(n - 1, k - 1, k) + 1) * Float.BYTES, 64);
    return matrix
        .granularity(granularity)
        .zeroPoint(encoding == Encoding.U4 ? 8 : encoding == Encoding.U8 ? 128 : 0)
        .scales(new Matrix.Values(Encoding.F32, scales))
        .build();
  }

  /** How the formats that use an encoding quantize to it; without zero points. */
  static QuantizeRule rule(Encoding encoding) {
    return switch (encoding) {
      case NF4, FP4 ->
          new QuantizeRule(
              Encoding.F32, true, 1, 0, Float.NEGATIVE_INFINITY, Float.POSITIVE_INFINITY, false, 0);
      case I8 -> new QuantizeRule(Encoding.F32, false, 127, 0, -128, 127, false, 0);
      case I4 -> new QuantizeRule(Encoding.F32, false, 7, 0, -8, 7, false, 0);
      case F8_E4M3 -> new QuantizeRule(Encoding.F32, false, 448, 0, -448, 448, false, 0);
      case F8_E5M2 -> new QuantizeRule(Encoding.F32, false, 57344, 0, -57344, 57344, false, 0);
      default -> throw new IllegalArgumentException("no rule for " + encoding);
    };
  }

  /** Random codes with scales of one hundredth. */
  static QuantizedTensor make(Encoding encoding, long n, long k, Arena arena) {
    Matrix matrix = empty(encoding, n, k, arena);
    MemorySegment codes = matrix.codes();
    if (encoding == Encoding.F32) {
      codes.copyFrom(floats(n * k, arena));
    } else {
      SplittableRandom random = new SplittableRandom(5);
      for (long i = 0; i < codes.byteSize(); i++) {
        codes.set(
            ValueLayout.JAVA_BYTE,
            i,
            (byte) (random.nextInt() & 0xBF)); // no NaN among the 8-bit floats
      }
    }
    matrix.scales().ifPresent(s -> fill(s.data()));
    Tensor tensor = new Tensor("codes", DType.U8, List.of(codes.byteSize()), codes);
    return new QuantizedTensor(
        "random",
        List.of(n, k),
        new RandomLayout(encoding),
        Map.of("codes", tensor),
        matrix,
        Encoding.F32);
  }

  private static void fill(MemorySegment scales) {
    for (long i = 0; i < scales.byteSize() / Float.BYTES; i++) {
      scales.setAtIndex(ValueLayout.JAVA_FLOAT, i, 0.01f);
    }
  }

  /** Fills a matrix from floats. */
  static void quantize(Backend backend, Matrix matrix, MemorySegment floats) {
    backend.quantize(matrix, rule(matrix.encoding()), floats, Encoding.F32);
  }
}
