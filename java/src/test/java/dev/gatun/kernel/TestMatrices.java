package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.GgufBlocks;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;

/** Random matrices of an encoding, described in every way that a checkpoint format may. */
final class TestMatrices {
  private final Arena arena;
  private final SplittableRandom random;
  private final boolean finite;

  /**
   * @param finite whether every weight is to be a finite number of moderate size
   */
  TestMatrices(Arena arena, long seed, boolean finite) {
    this.arena = arena;
    this.random = new SplittableRandom(seed);
    this.finite = finite;
  }

  /** Matrices by what is special about them. */
  Map<String, Matrix> of(Encoding e) {
    Map<String, Matrix> all = new LinkedHashMap<>();
    if (e.isBlock()) {
      all.put("blocks 7x3", blocks(e, 7, 3));
      all.put("blocks 33x1", blocks(e, 33, 1));
      return all;
    }
    if (e.isPlain()) {
      all.put("plain 37x67", codes(e, 37, 67, CodeOrder.LOW_FIRST, 0));
      all.put("plain padded", codes(e, 5, 9, CodeOrder.LOW_FIRST, 9L * e.bits() / 8 + 8));
      all.put("plain one", codes(e, 1, 1, CodeOrder.LOW_FIRST, 0));
      all.put("plain 64x128", codes(e, 64, 128, CodeOrder.LOW_FIRST, 0));
      return all;
    }
    CodeOrder usual = e.bits() == 8 || 8 % e.bits() == 0 ? CodeOrder.LOW_FIRST : CodeOrder.BITS;
    granularities(e, usual, all);
    parameters(e, usual, all);
    orders(e, all);
    extras(e, usual, all);
    return all;
  }

  private void granularities(Encoding e, CodeOrder order, Map<String, Matrix> all) {
    all.put("no scales", codes(e, 37, 67, order, 0));
    all.put("one", scaled(e, 1, 1, order, Granularity.perTensor(1, 1), Encoding.F32));
    all.put("tensor", scaled(e, 37, 67, order, Granularity.perTensor(37, 67), Encoding.F32));
    all.put("channel", scaled(e, 37, 67, order, Granularity.perChannel(67), Encoding.F32));
    all.put("channel 64x96", scaled(e, 64, 96, order, Granularity.perChannel(96), Encoding.F32));
    all.put("group 32", scaled(e, 37, 67, order, Granularity.perGroup(67, 32), Encoding.F32));
    all.put("group 64", scaled(e, 32, 256, order, Granularity.perGroup(256, 64), Encoding.F32));
    all.put("group 5", scaled(e, 6, 13, order, Granularity.perGroup(13, 5), Encoding.F32));
    all.put("tiles", scaled(e, 37, 67, order, new Granularity.Tile(16, 16, 5, 1), Encoding.F32));
    all.put(
        "tiles across", scaled(e, 9, 32, order, new Granularity.Tile(2, 8, 1, 5), Encoding.F32));
    all.put("flat 64", scaled(e, 37, 67, order, new Granularity.Flat(64), Encoding.F32));
    all.put("flat 64 rows", scaled(e, 35, 128, order, new Granularity.Flat(64), Encoding.F32));
    all.put("flat 4", scaled(e, 3, 7, order, new Granularity.Flat(4), Encoding.F32));
  }

  private void parameters(Encoding e, CodeOrder order, Map<String, Matrix> all) {
    Granularity group = Granularity.perGroup(67, 16);
    for (Encoding type : List.of(Encoding.F16, Encoding.BF16, Encoding.F8_E4M3, Encoding.F8_E8M0)) {
      all.put("scales " + type, scaled(e, 37, 67, order, group, type));
    }
    Matrix plain = scaled(e, 37, 67, order, group, Encoding.F32);
    all.put("global scale", plain.toBuilder().globalScale(0.37f).build());
    all.put("zero point", plain.toBuilder().zeroPoint(5).build());
    for (Encoding type :
        List.of(Encoding.U8, Encoding.I8, Encoding.F32, Encoding.F16, Encoding.BF16)) {
      all.put("zeros " + type, plain.toBuilder().zeros(Optional.of(values(plain, type))).build());
    }
    all.put("offsets", plain.toBuilder().offsets(values(plain, Encoding.F32)).build());
    all.put("offsets F16", plain.toBuilder().subtracted(values(plain, Encoding.F16)).build());
    for (Encoding type : List.of(Encoding.F16, Encoding.BF16)) {
      Matrix half =
          plain.toBuilder()
              .arithmetic(type)
              .result(type)
              .zeroPoint(3)
              .offsets(values(plain, type))
              .build();
      all.put("arithmetic " + type, half);
      all.put("result " + type, plain.toBuilder().result(type).build());
    }
    all.put("nested", nested(e, order, new Granularity.Flat(64), 35, 128));
    all.put("nested odd", nested(e, order, new Granularity.Flat(64), 37, 67));
  }

  private void orders(Encoding e, Map<String, Matrix> all) {
    boolean whole = 8 % e.bits() == 0;
    if (e.bits() < 8) {
      for (CodeOrder order : List.of(CodeOrder.BITS, CodeOrder.WORDS, CodeOrder.WORDS_K)) {
        if (order != CodeOrder.WORDS_K || whole || e.bits() == 3) {
          all.put(
              "order " + order,
              scaled(e, 40, 96, order, Granularity.perGroup(96, 32), Encoding.F16));
          all.put(
              "order " + order + " odd",
              scaled(e, 13, 37, order, Granularity.perChannel(37), Encoding.F32));
        }
      }
    }
    if (whole) {
      all.put(
          "padded rows",
          scaled(e, 11, 33, CodeOrder.LOW_FIRST, 48, Granularity.perGroup(33, 16), Encoding.F32));
    }
    if (whole && e.bits() < 8) {
      all.put(
          "order SPLIT_ROWS",
          scaled(e, 16, 64, CodeOrder.SPLIT_ROWS, Granularity.perGroup(64, 32), Encoding.F32));
    }
    if (e.bits() == 4) {
      for (CodeOrder order :
          List.of(CodeOrder.HIGH_FIRST, CodeOrder.WORDS_N, CodeOrder.TILES_8X16)) {
        all.put(
            "order " + order,
            scaled(e, 40, 256, order, Granularity.perGroup(256, 32), Encoding.F16));
      }
      all.put(
          "order HIGH_FIRST odd",
          scaled(e, 37, 67, CodeOrder.HIGH_FIRST, new Granularity.Flat(64), Encoding.F32));
    }
  }

  private void extras(Encoding e, CodeOrder order, Map<String, Matrix> all) {
    Granularity group = Granularity.perGroup(64, 16);
    Matrix m = scaled(e, 33, 64, order, group, Encoding.F32);
    MemorySegment book = floats(1L << e.bits());
    all.put("codebook", m.toBuilder().codebook(Optional.of(book)).build());
    MemorySegment groups = arena.allocate(64 * 4L, 64);
    for (long i = 0; i < 64; i++) {
      groups.setAtIndex(ValueLayout.JAVA_INT, i, random.nextInt(4));
    }
    all.put("column groups", m.toBuilder().columnGroups(Optional.of(groups)).build());
    all.put("row scales", m.toBuilder().rowScales(floats(33)).build());
    all.put("rotation", m.toBuilder().rotation(16).build());
    Matrix blocked =
        Matrix.builder(130, 96, e, m.codes())
            .codeOrder(order)
            .granularity(Granularity.perGroup(96, 16))
            .build();
    Matrix.Values scales =
        new Matrix.Values(Encoding.F8_E4M3, numbers(Encoding.F8_E4M3, 2 * 2 * 512, true));
    all.put(
        "blocked scales",
        blocked.toBuilder()
            .codes(random(MatrixCheck.codeBytes(blocked), e))
            .scaleOrder(ScaleOrder.BLOCKED_128X4)
            .scales(scales)
            .build());
  }

  /** Random blocks; the finite ones are thrown until they hold numbers of moderate size only. */
  private Matrix blocks(Encoding e, long n, long blocks) {
    MemorySegment codes = arena.allocate(n * blocks * e.blockBytes(), 64);
    float[] decoded = new float[e.blockElements()];
    for (long block = 0; block < n * blocks; block++) {
      do {
        for (long i = 0; i < e.blockBytes(); i++) {
          codes.set(ValueLayout.JAVA_BYTE, block * e.blockBytes() + i, (byte) random.nextInt(256));
        }
        GgufBlocks.decode(e, codes, block * e.blockBytes(), decoded);
      } while (finite && !isModerate(decoded));
    }
    return Matrix.builder(n, blocks * e.blockElements(), e, codes).build();
  }

  private static boolean isModerate(float[] values) {
    for (float value : values) {
      if (!(Math.abs(value) <= 512)) {
        return false;
      }
    }
    return true;
  }

  private Matrix codes(Encoding e, long n, long k, CodeOrder order, long rowStride) {
    return codes(e, n, k, order, rowStride, Granularity.perTensor(n, k));
  }

  private Matrix codes(
      Encoding e, long n, long k, CodeOrder order, long rowStride, Granularity granularity) {
    Matrix bare =
        Matrix.builder(n, k, e, MemorySegment.NULL)
            .codeOrder(order, rowStride)
            .granularity(granularity)
            .build();
    return bare.toBuilder().codes(random(MatrixCheck.codeBytes(bare), e)).build();
  }

  Matrix scaled(
      Encoding e, long n, long k, CodeOrder order, Granularity granularity, Encoding type) {
    return scaled(e, n, k, order, 0, granularity, type);
  }

  private Matrix scaled(
      Encoding e,
      long n,
      long k,
      CodeOrder order,
      long rowStride,
      Granularity granularity,
      Encoding type) {
    Matrix bare = codes(e, n, k, order, rowStride, granularity);
    return bare.toBuilder().scales(values(bare, type)).build();
  }

  private Matrix.Values values(Matrix m, Encoding type) {
    return new Matrix.Values(type, numbers(type, MatrixCheck.parameters(m), true));
  }

  private Matrix nested(Encoding e, CodeOrder order, Granularity granularity, long n, long k) {
    Matrix bare = codes(e, n, k, order, 0, granularity);
    long count = MatrixCheck.parameters(bare);
    return bare.toBuilder()
        .scales(new Matrix.Values(Encoding.U8, numbers(Encoding.U8, count, true)))
        .nested(Optional.of(new Matrix.Nested(floats(256), floats((count + 15) / 16), 16, 0.125f)))
        .build();
  }

  /**
   * Numbers of a plain type, an 8-bit float or an 8-bit integer; positive ones make good scales.
   */
  MemorySegment numbers(Encoding type, long count, boolean positive) {
    MemorySegment data = arena.allocate(Math.max(1, count * type.bits() / 8), 64);
    for (long i = 0; i < count; i++) {
      switch (type) {
        case U8, I8 -> data.set(ValueLayout.JAVA_BYTE, i, (byte) random.nextInt(16));
        case F8_E8M0 -> data.set(ValueLayout.JAVA_BYTE, i, (byte) (120 + random.nextInt(12)));
        default -> {
          float value = (float) (random.nextDouble() * 1.5 + 0.01);
          Numbers.put(type, data, i, positive || random.nextBoolean() ? value : -value);
        }
      }
    }
    return data.asSlice(0, count * type.bits() / 8);
  }

  private MemorySegment floats(long count) {
    return numbers(Encoding.F32, count, true);
  }

  /** Any codes, or those that are finite numbers. */
  private MemorySegment random(long bytes, Encoding e) {
    MemorySegment data = arena.allocate(Math.max(1, bytes), 64);
    if (e.isPlain() && finite) {
      return numbers(e, bytes / (e.bits() / 8), false).asSlice(0, bytes);
    }
    for (long i = 0; i < bytes; i++) {
      int code = random.nextInt(256);
      while (finite && e.bits() == 8 && !(Math.abs(Codebooks.decode(e, code)) <= 512)) {
        code = random.nextInt(256);
      }
      data.set(ValueLayout.JAVA_BYTE, i, (byte) code);
    }
    return data.asSlice(0, bytes);
  }
}
