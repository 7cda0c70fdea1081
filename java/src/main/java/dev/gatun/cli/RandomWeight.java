package dev.gatun.cli;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixCheck;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.Layout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;

/** Random weights of any encoding, with scales as the formats that use the encoding have them. */
final class RandomWeight {
  private static final long SEED = 20_140_815;

  private RandomWeight() {}

  /** Which weights share a scale, and the scale's type. */
  private record Scales(Granularity granularity, Encoding type, int zeroPoint) {}

  private record RandomLayout(Encoding encoding) implements Layout {
    @Override
    public String name() {
      return "random." + Words.of(encoding);
    }

    @Override
    public String describe() {
      return "random codes of " + encoding;
    }
  }

  /** Whether codes of this encoding make a weight; those of scales do not. */
  static boolean canBeMade(Encoding encoding) {
    return encoding != Encoding.F8_E8M0;
  }

  /** Every encoding that makes a weight. */
  static List<Encoding> encodings() {
    return Arrays.stream(Encoding.values()).filter(RandomWeight::canBeMade).toList();
  }

  /** M × K floats between -1 and 1. */
  static MemorySegment activations(long count, Arena arena) {
    MemorySegment x = arena.allocate(Math.multiplyExact(count, 4L), 64);
    fillPlain(x, Encoding.F32, count, new SplittableRandom(SEED + 1));
    return x;
  }

  /** An N × K weight in the arena's memory. */
  static QuantizedTensor make(Encoding encoding, long n, long k, Arena arena) {
    SplittableRandom random = new SplittableRandom(SEED);
    long elements = Math.multiplyExact(n, k);
    boolean wholeBytes = encoding.bits() % 8 == 0 || 8 % encoding.bits() == 0;
    Matrix bare =
        Matrix.builder(n, k, encoding, MemorySegment.NULL)
            .codeOrder(wholeBytes ? CodeOrder.LOW_FIRST : CodeOrder.WORDS)
            .build();
    MemorySegment codes = arena.allocate(MatrixCheck.codeBytes(bare), 64);
    Optional<Scales> scales = scales(encoding, n, k);
    if (encoding.isPlain()) {
      fillPlain(codes, encoding, elements, random);
    } else {
      fillCodes(codes, encoding, random);
    }
    Optional<Matrix.Values> values =
        scales.map(
            s ->
                scaleValues(
                    s.type, Math.addExact(s.granularity.index(n - 1, k - 1, k), 1), random, arena));
    Matrix matrix =
        bare.toBuilder()
            .codes(codes)
            .granularity(scales.map(Scales::granularity).orElse(Granularity.perTensor(n, k)))
            .scales(values)
            .zeroPoint(scales.map(Scales::zeroPoint).orElse(0))
            .build();
    Map<String, Tensor> parts = new LinkedHashMap<>();
    parts.put("codes", bytes("codes", codes));
    values.ifPresent(v -> parts.put("scales", bytes("scales", v.data())));
    return new QuantizedTensor(
        "random", List.of(n, k), new RandomLayout(encoding), parts, matrix, Encoding.F32);
  }

  private static Tensor bytes(String name, MemorySegment data) {
    return new Tensor(name, DType.U8, List.of(data.byteSize()), data);
  }

  private static Optional<Scales> scales(Encoding encoding, long n, long k) {
    if (encoding.isBlock()) {
      return Optional.empty(); // they are in the blocks
    }
    return switch (encoding) {
      case F32, F16, BF16 -> Optional.empty();
      case I8 -> Optional.of(new Scales(Granularity.perChannel(k), Encoding.F32, 0));
      case U8 -> Optional.of(new Scales(Granularity.perChannel(k), Encoding.F32, 128));
      case I4 -> Optional.of(new Scales(Granularity.perGroup(k, 32), Encoding.F32, 0));
      case U4 -> Optional.of(new Scales(Granularity.perGroup(k, 32), Encoding.F32, 8));
      case NF4, FP4 -> Optional.of(new Scales(new Granularity.Flat(64), Encoding.F32, 0));
      case F4_E2M1 ->
          Optional.of(new Scales(Granularity.perGroup(k, 16), Encoding.F8_E4M3, 0)); // NVFP4's
      default -> Optional.of(new Scales(Granularity.perTensor(n, k), Encoding.F32, 0));
    };
  }

  private static Matrix.Values scaleValues(
      Encoding type, long count, SplittableRandom random, Arena arena) {
    MemorySegment data = arena.allocate(Math.multiplyExact(count, (long) type.bits() / 8), 64);
    for (long i = 0; i < count; i++) {
      Numbers.put(type, data, i, (float) (0.01 + 0.02 * random.nextDouble()));
    }
    return new Matrix.Values(type, data);
  }

  private static void fillPlain(
      MemorySegment data, Encoding type, long count, SplittableRandom random) {
    for (long i = 0; i < count; i++) {
      Numbers.put(type, data, i, (float) (2 * random.nextDouble() - 1));
    }
  }

  /** Any codes but those that stand for NaN or infinity. */
  private static void fillCodes(MemorySegment data, Encoding encoding, SplittableRandom random) {
    byte[] codes = new byte[256];
    for (int code = 0; code < codes.length; code++) {
      codes[code] = (byte) (isNumber(encoding, code) ? code : 0);
    }
    // Without bit 6 no byte of a block is the upper one of a float scale that is NaN or infinite.
    int mask = encoding.isBlock() ? 0xBF : 0xFF;
    for (long i = 0; i < data.byteSize(); i++) {
      data.set(ValueLayout.JAVA_BYTE, i, codes[random.nextInt(256) & mask]);
    }
  }

  private static boolean isNumber(Encoding encoding, int code) {
    return encoding.isBlock()
        || encoding.bits() < 8
        || Float.isFinite(Codebooks.decode(encoding, code));
  }
}
