package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.GgufBlocks;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.function.UnaryOperator;

/** Random matrices of every kind that the definition knows, for comparing a backend with it. */
final class Samples {
  /** One matrix and what is peculiar about it. */
  record Sample(String name, Matrix matrix) {
    @Override
    public String toString() {
      return name;
    }
  }

  private Samples() {}

  /** Every encoding plainly, then every peculiarity with some encoding. */
  static List<Sample> all() {
    List<Sample> samples = new ArrayList<>();
    for (Encoding e : Encoding.values()) {
      if (e == Encoding.F8_E8M0 || (e.isBlock() && !GgufBlocks.decodes(e))) {
        continue;
      }
      samples.add(encoding(e, 37, e.isBlock() ? 2L * e.blockElements() : 75));
      samples.add(encoding(e, 70, e.isBlock() ? 3L * e.blockElements() : 544));
    }
    peculiar(samples);
    for (Encoding e :
        List.of(Encoding.Q4_1, Encoding.Q8_0, Encoding.MXFP4, Encoding.NVFP4, Encoding.Q4_K)) {
      Matrix m = encoding(e, 37, 2L * e.blockElements()).matrix();
      samples.add(new Sample("global scale: " + e, m.toBuilder().globalScale(0.037f).build()));
    }
    return samples;
  }

  /** Codes of an encoding in rows, with scales by row, or as the encoding wants it. */
  static Sample encoding(Encoding e, long n, long k) {
    Matrix m = codes(bare(n, k, e));
    if (!e.isPlain() && !e.isBlock()) {
      m = scaled(m, Granularity.perChannel(k), Encoding.F32);
    }
    return new Sample(e + " " + n + "x" + k, m);
  }

  private static Matrix bare(long n, long k, Encoding e) {
    boolean whole = e.isBlock() || e.bits() % 8 == 0 || 8 % e.bits() == 0;
    return Matrix.builder(n, k, e, MemorySegment.NULL)
        .codeOrder(whole ? CodeOrder.LOW_FIRST : CodeOrder.BITS)
        .build();
  }

  private static void peculiar(List<Sample> samples) {
    add(
        samples,
        "tensor",
        Encoding.F8_E4M3,
        33,
        64,
        Granularity.perTensor(33, 64),
        Encoding.F32,
        m -> m);
    add(
        samples,
        "groups of 32",
        Encoding.U4,
        65,
        96,
        Granularity.perGroup(96, 32),
        Encoding.F16,
        m -> m.toBuilder().zeroPoint(8).build());
    add(
        samples,
        "groups of 20",
        Encoding.I4,
        20,
        90,
        Granularity.perGroup(90, 20),
        Encoding.BF16,
        m -> m);
    add(
        samples,
        "groups of 3",
        Encoding.I8,
        20,
        31,
        Granularity.perGroup(31, 3),
        Encoding.F32,
        m -> m);
    add(
        samples,
        "tiles",
        Encoding.F8_E4M3,
        200,
        300,
        new Granularity.Tile(128, 128, 3, 1),
        Encoding.F32,
        m -> m);
    add(
        samples,
        "tiles by column",
        Encoding.I8,
        40,
        64,
        new Granularity.Tile(1, 16, 1, 40),
        Encoding.F32,
        m -> m);
    add(
        samples,
        "flat in rows",
        Encoding.NF4,
        35,
        128,
        new Granularity.Flat(64),
        Encoding.F32,
        m -> m);
    add(
        samples,
        "flat of rows",
        Encoding.I8,
        36,
        16,
        new Granularity.Flat(32),
        Encoding.F32,
        m -> m);
    add(
        samples,
        "flat across",
        Encoding.FP4,
        19,
        72,
        new Granularity.Flat(64),
        Encoding.F32,
        m -> m);
    add(
        samples,
        "flat across, irregular",
        Encoding.NF4,
        19,
        51,
        new Granularity.Flat(64),
        Encoding.F32,
        m -> m);
    add(
        samples,
        "high first, bfloat16",
        Encoding.NF4,
        34,
        256,
        new Granularity.Flat(64),
        Encoding.F32,
        m ->
            codes(
                m.toBuilder()
                    .codeOrder(CodeOrder.HIGH_FIRST)
                    .arithmetic(Encoding.F32)
                    .result(Encoding.BF16)
                    .build()));
    add(
        samples,
        "float16 throughout",
        Encoding.U4,
        34,
        128,
        Granularity.perGroup(128, 64),
        Encoding.F16,
        m ->
            zeros(
                m.toBuilder().arithmetic(Encoding.F16).result(Encoding.F16).build(), Encoding.U8));
    add(
        samples,
        "float zero points",
        Encoding.U8,
        10,
        70,
        Granularity.perGroup(70, 35),
        Encoding.F32,
        m -> zeros(m, Encoding.BF16));
    add(
        samples,
        "offsets",
        Encoding.U4,
        34,
        64,
        Granularity.perGroup(64, 32),
        Encoding.BF16,
        m ->
            offsets(
                m.toBuilder().arithmetic(Encoding.BF16).result(Encoding.BF16).build(),
                Encoding.BF16,
                false));
    add(
        samples,
        "offsets subtracted",
        Encoding.U2,
        34,
        64,
        Granularity.perGroup(64, 32),
        Encoding.F32,
        m -> offsets(m, Encoding.F16, true));
    add(
        samples,
        "nested scales",
        Encoding.NF4,
        33,
        128,
        new Granularity.Flat(64),
        Encoding.U8,
        Samples::nested);
    add(
        samples,
        "global scale",
        Encoding.F4_E2M1,
        33,
        64,
        Granularity.perGroup(64, 16),
        Encoding.F8_E4M3,
        m -> m.toBuilder().globalScale(0.037f).build());
    add(
        samples,
        "powers of two",
        Encoding.F4_E2M1,
        33,
        64,
        Granularity.perGroup(64, 32),
        Encoding.F8_E8M0,
        m -> m);
    add(
        samples,
        "blocked scales",
        Encoding.F4_E2M1,
        33,
        80,
        Granularity.perGroup(80, 16),
        Encoding.F8_E4M3,
        m ->
            scaled(
                m.toBuilder().scaleOrder(ScaleOrder.BLOCKED_128X4).build(),
                m.granularity(),
                Encoding.F8_E4M3));
    add(
        samples,
        "padded rows",
        Encoding.I4,
        33,
        45,
        Granularity.perChannel(45),
        Encoding.F32,
        m -> codes(m.toBuilder().codeOrder(CodeOrder.LOW_FIRST, 31).build()));
    add(
        samples,
        "padded rows of shorts",
        Encoding.BF16,
        9,
        45,
        Granularity.perTensor(9, 45),
        Encoding.F32,
        m -> codes(m.toBuilder().codeOrder(CodeOrder.LOW_FIRST, 93).build()));
    add(
        samples,
        "words along k",
        Encoding.U4,
        40,
        64,
        Granularity.perGroup(64, 32),
        Encoding.F16,
        m -> codes(m.toBuilder().codeOrder(CodeOrder.WORDS_K).build()));
    add(
        samples,
        "three bits in words along k",
        Encoding.U3,
        40,
        64,
        Granularity.perGroup(64, 32),
        Encoding.F16,
        m -> codes(m.toBuilder().codeOrder(CodeOrder.WORDS_K).build()));
    add(
        samples,
        "words along n",
        Encoding.U4,
        40,
        64,
        Granularity.perGroup(64, 32),
        Encoding.F16,
        m -> codes(m.toBuilder().codeOrder(CodeOrder.WORDS_N).build()));
    add(
        samples,
        "split rows",
        Encoding.U4,
        40,
        64,
        Granularity.perGroup(64, 32),
        Encoding.F16,
        m -> codes(m.toBuilder().codeOrder(CodeOrder.SPLIT_ROWS).build()));
    add(
        samples,
        "tensor-core tiles",
        Encoding.U4,
        40,
        128,
        Granularity.perGroup(128, 32),
        Encoding.F16,
        m -> codes(m.toBuilder().codeOrder(CodeOrder.TILES_8X16).build()));
    add(
        samples,
        "columns out of order",
        Encoding.U4,
        40,
        64,
        Granularity.perGroup(64, 16),
        Encoding.F16,
        m -> zeros(columnGroups(m, 4), Encoding.U8));
    add(
        samples,
        "codebook",
        Encoding.U4,
        40,
        64,
        Granularity.perChannel(64),
        Encoding.F32,
        Samples::codebook);
    add(
        samples,
        "codebook of 256",
        Encoding.U8,
        40,
        64,
        Granularity.perChannel(64),
        Encoding.F32,
        Samples::codebook);
    add(
        samples,
        "row scales",
        Encoding.I4,
        40,
        64,
        Granularity.perGroup(64, 16),
        Encoding.F32,
        m -> m.toBuilder().rowScales(floats(40)).build());
    add(
        samples,
        "rotated",
        Encoding.I8,
        40,
        512,
        Granularity.perChannel(512),
        Encoding.F32,
        m -> m.toBuilder().rotation(256).build());
    add(
        samples,
        "rotated, bfloat16",
        Encoding.I4,
        33,
        64,
        Granularity.perChannel(64),
        Encoding.F32,
        m -> m.toBuilder().rotation(16).result(Encoding.BF16).build());
    add(
        samples,
        "rotated at length",
        Encoding.I8,
        9,
        1024,
        Granularity.perChannel(1024),
        Encoding.F32,
        m -> m.toBuilder().rotation(1024).build());
    add(samples, "no rows", Encoding.I8, 0, 16, Granularity.perChannel(16), Encoding.F32, m -> m);
    add(samples, "no columns", Encoding.U4, 5, 0, Granularity.perChannel(0), Encoding.F32, m -> m);
    add(
        samples,
        "one weight",
        Encoding.NF4,
        1,
        1,
        Granularity.perTensor(1, 1),
        Encoding.F32,
        m -> m);
  }

  private static void add(
      List<Sample> samples,
      String name,
      Encoding e,
      long n,
      long k,
      Granularity granularity,
      Encoding scales,
      UnaryOperator<Matrix> change) {
    Matrix m =
        scaled(codes(bare(n, k, e)), granularity, scales == Encoding.U8 ? Encoding.F32 : scales);
    samples.add(new Sample(name + ": " + e + " " + n + "x" + k, change.apply(m)));
  }

  private static SplittableRandom random(long salt) {
    return new SplittableRandom(20140815 + salt);
  }

  /** Random codes as the description lays them, none that stands for NaN or infinity. */
  static Matrix codes(Matrix m) {
    SplittableRandom random = random(m.n() * 31 + m.k());
    MemorySegment codes =
        MemorySegment.ofArray(new byte[Math.toIntExact(MatrixCheck.codeBytes(m))]);
    Encoding e = m.encoding();
    if (e.isPlain()) {
      for (long i = 0; i < codes.byteSize(); i++) {
        codes.set(ValueLayout.JAVA_BYTE, i, (byte) random.nextInt(256)); // what lies between rows
      }
      for (long row = 0; row < m.n(); row++) {
        MemorySegment start =
            codes.asSlice(
                m.codeRowStride() == 0 ? row * m.k() * e.bits() / 8 : row * m.codeRowStride());
        for (long i = 0; i < m.k(); i++) {
          Numbers.put(e, start, i, (float) random.nextDouble(-1, 1));
        }
      }
      return m.toBuilder().codes(codes).build();
    }
    for (long i = 0; i < codes.byteSize(); i++) {
      byte code = (byte) random.nextInt(256);
      boolean number = e.bits() != 8 || Float.isFinite(Codebooks.decode(e, code & 0xFF));
      codes.set(ValueLayout.JAVA_BYTE, i, number ? code : 1);
    }
    if (e.isBlock()) {
      // Half floats lie at different places in different blocks: nowhere an exponent of all ones.
      for (long i = 0; i < codes.byteSize(); i++) {
        codes.set(ValueLayout.JAVA_BYTE, i, (byte) (codes.get(ValueLayout.JAVA_BYTE, i) & 0xBF));
      }
    }
    return m.toBuilder().codes(codes).build();
  }

  /** Random positive scales. */
  static Matrix scaled(Matrix m, Granularity granularity, Encoding type) {
    Matrix bare = m.toBuilder().granularity(granularity).build();
    long count = MatrixCheck.parameters(bare);
    if (m.scaleOrder() == ScaleOrder.BLOCKED_128X4 && granularity instanceof Granularity.Tile t) {
      count = Math.ceilDiv(m.n(), 128L) * Math.ceilDiv(Math.ceilDiv(m.k(), t.cols()), 4L) * 512;
    }
    return bare.toBuilder().scales(values(type, count, 0.01, 0.03)).build();
  }

  private static Matrix.Values values(Encoding type, long count, double from, double to) {
    SplittableRandom random = random(count + type.id());
    MemorySegment data = MemorySegment.ofArray(new byte[Math.toIntExact(count * type.bits() / 8)]);
    for (long i = 0; i < count; i++) {
      Numbers.put(type, data, i, (float) random.nextDouble(from, to));
    }
    return new Matrix.Values(type, data);
  }

  private static MemorySegment floats(long count) {
    return values(Encoding.F32, count, 0.1, 0.2).data();
  }

  private static Matrix zeros(Matrix m, Encoding type) {
    return m.toBuilder().zeros(Optional.of(values(type, MatrixCheck.parameters(m), 5, 11))).build();
  }

  private static Matrix offsets(Matrix m, Encoding type, boolean subtracted) {
    Matrix.Values values = values(type, MatrixCheck.parameters(m), -0.2, 0.2);
    return subtracted
        ? m.toBuilder().subtracted(values).build()
        : m.toBuilder().offsets(values).build();
  }

  private static Matrix nested(Matrix m) {
    long count = MatrixCheck.parameters(m);
    MemorySegment codebook = floats(256);
    MemorySegment scales = floats(count / 16 + 1);
    return m.toBuilder()
        .scales(values(Encoding.U8, count, 0, 255))
        .nested(Optional.of(new Matrix.Nested(codebook, scales, 16, 0.05f)))
        .build();
  }

  private static Matrix columnGroups(Matrix m, int groups) {
    SplittableRandom random = random(groups);
    int[] of = random.ints(m.k(), 0, groups).toArray();
    of[0] = groups - 1;
    return m.toBuilder().columnGroups(Optional.of(MemorySegment.ofArray(of))).build();
  }

  private static Matrix codebook(Matrix m) {
    return m.toBuilder()
        .codebook(Optional.of(values(Encoding.F32, 1L << m.encoding().bits(), -1, 1).data()))
        .build();
  }

  /** M × K numbers with {@code gap} numbers of NaN between rows. */
  static MemorySegment x(long m, long k, Encoding type, long gap) {
    SplittableRandom random = random(m * 7 + k);
    MemorySegment x =
        MemorySegment.ofArray(new byte[Math.toIntExact(m * (k + gap) * type.bits() / 8)]);
    for (long i = 0; i < m * (k + gap); i++) {
      boolean inside = i % (k + gap) < k;
      Numbers.put(
          type, x, i, inside ? HalfFloat.round(type, (float) random.nextDouble(-1, 1)) : Float.NaN);
    }
    return x;
  }
}
