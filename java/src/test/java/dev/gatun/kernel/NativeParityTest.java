package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assertions.fail;
import static org.junit.jupiter.api.Assumptions.assumeTrue;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_h;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * Every row of the library's kernel table against the reference backend: one test a row, which
 * asserts that it was this row that ran. Rows of instruction sets that this machine lacks are
 * skipped.
 */
class NativeParityTest {
  private static final List<Encoding> PLAIN = List.of(Encoding.F32, Encoding.F16, Encoding.BF16);
  private static final int THREADS = 3;

  /**
   * Rows of y over which an error is measured. One row of few outputs may cancel out or share one
   * scale's rounding, and would then say more of chance than of the kernel.
   */
  private static final int MEASURED_ROWS = 16;

  /** Of {@link TestMatrices}. */
  private static final Set<String> ALWAYS_IN_PANELS =
      Set.of("plain 37x67", "plain 64x128", "tensor", "channel 64x96", "group 32", "group 64");

  private final ReferenceBackend reference = new ReferenceBackend();

  /** Whether the row under test has run itself, rather than one that it falls back to. */
  private boolean ran;

  @TestFactory
  Stream<DynamicTest> everyKernel() {
    Native.require();
    List<NativeBackend.Row> table = NativeBackend.table();
    assertThat(table).isNotEmpty();
    return table.stream().map(row -> dynamicTest(row.name(), () -> run(row)));
  }

  private void run(NativeBackend.Row row) {
    assumeTrue(
        gatun_h.gatun_isa_check(row.isa()) == gatun_h.GATUN_OK(),
        () -> "this machine has no " + NativeBackend.isaName(row.isa()));
    Encoding encoding =
        NativeBackend.encoding(row.encoding())
            .orElseThrow(() -> new AssertionError("no encoding " + row.encoding() + " in Java"));
    NativeBackend backend = new NativeBackend(THREADS, row.isa());
    ran = false;
    try (Arena arena = Arena.ofConfined()) {
      switch (row.operation()) {
        case DEQUANTIZE -> dequantize(backend, row, encoding, arena);
        case EMBEDDING -> embedding(backend, row, encoding, arena);
        case QUANTIZE -> quantize(backend, row, encoding, arena);
        case PACK, UNPACK -> pack(backend, row, encoding, arena);
        case LINEAR -> linear(backend, row, encoding, arena);
        case CONVERT -> convert(backend, row, encoding, arena);
      }
    }
    assertThat(ran).as("whether some matrix ran " + row.name()).isTrue();
  }

  private void dequantize(
      NativeBackend backend, NativeBackend.Row row, Encoding encoding, Arena arena) {
    new TestMatrices(arena, 1, false)
        .of(encoding)
        .forEach(
            (what, m) -> {
              long from = m.n() / 3;
              long rows = m.n() - from;
              for (Encoding type : PLAIN) {
                MemorySegment expected = output(rows * m.k(), type, arena);
                MemorySegment found = output(rows * m.k(), type, arena);
                reference.dequantize(m, from, rows, expected, type);
                backend.dequantize(m, from, rows, found, type);
                assertRan(backend, row, what);
                assertSame(what + " to " + type, type, found, expected);
              }
              Encoding type = PLAIN.get((int) (m.k() % PLAIN.size()));
              MemorySegment w = numbers(new TestMatrices(arena, 5, false), type, rows * m.k());
              Deviation expected = reference.deviation(m, from, rows, w, type);
              Deviation found = backend.deviation(m, from, rows, w, type);
              assertClose(what, found.signal(), expected.signal());
              assertClose(what, found.noise(), expected.noise());
              assertClose(what, found.largest(), expected.largest());
            });
  }

  /** The same sum but for the order in which it was made, and its parts that are floats. */
  private static void assertClose(String what, double found, double expected) {
    if (Double.isFinite(expected)) {
      assertThat(found).as(what).isCloseTo(expected, within(1e-6 * Math.abs(expected)));
    } else {
      assertThat(found).as(what).isEqualTo(Double.valueOf(expected)); // NaN is NaN
    }
  }

  private void embedding(
      NativeBackend backend, NativeBackend.Row row, Encoding encoding, Arena arena) {
    new TestMatrices(arena, 2, false)
        .of(encoding)
        .forEach(
            (what, m) -> {
              long[] ids = {m.n() - 1, 0, m.n() / 2, m.n() - 1};
              for (Encoding type : PLAIN) {
                MemorySegment expected = output(ids.length * m.k(), type, arena);
                MemorySegment found = output(ids.length * m.k(), type, arena);
                reference.embedding(m, ids, expected, type);
                backend.embedding(m, ids, found, type);
                assertRan(backend, row, what);
                assertSame(what + " to " + type, type, found, expected);
              }
            });
  }

  private void quantize(
      NativeBackend backend, NativeBackend.Row row, Encoding encoding, Arena arena) {
    TestMatrices matrices = new TestMatrices(arena, 3, true);
    if (encoding.isBlock()) {
      quantizeBlocks(backend, row, matrices, encoding, arena);
      return;
    }
    int bits = encoding.bits();
    float max = Fp8.is(encoding) ? Fp8.max(encoding) : (1 << Math.max(1, bits - 1)) - 1;
    float min = Fp8.is(encoding) || encoding != Encoding.U8 ? -max : 0;
    List<Granularity> granularities =
        List.of(
            Granularity.perTensor(37, 66),
            Granularity.perChannel(66),
            Granularity.perGroup(66, 16),
            new Granularity.Tile(8, 8, 9, 1),
            new Granularity.Flat(64));
    for (Granularity granularity : granularities) {
      for (Encoding arithmetic : PLAIN) {
        for (int variant = 0; variant < 4; variant++) {
          QuantizeRule rule =
              new QuantizeRule(
                  arithmetic,
                  (variant & 1) == 1,
                  max,
                  variant == 2 ? 1e-3f : 0,
                  min,
                  max,
                  variant == 3,
                  variant == 0 ? 1 : -1);
          Encoding wType = PLAIN.get(variant % 3);
          CodeOrder order = bits == 8 || 8 % bits == 0 ? CodeOrder.LOW_FIRST : CodeOrder.BITS;
          Matrix expected = matrices.scaled(encoding, 37, 66, order, granularity, arithmetic);
          Matrix found = expected.withMemory(memory -> copy(memory, arena));
          MemorySegment w = numbers(matrices, wType, 37 * 66);
          reference.quantize(expected, rule, w, wType);
          String what = granularity + " " + rule + " from " + wType;
          backend.quantize(found, rule, w, wType);
          assertRanItself(backend, row, what);
          assertThat(found.memory().get("scales").mismatch(expected.memory().get("scales")))
              .as("scales of " + what)
              .isEqualTo(-1);
          assertThat(found.codes().mismatch(expected.codes())).as("codes of " + what).isEqualTo(-1);
        }
      }
    }
  }

  /**
   * Blocks of usual numbers, of zeros, of one number, of powers of two, of the largest and least.
   */
  private void quantizeBlocks(
      NativeBackend backend,
      NativeBackend.Row row,
      TestMatrices matrices,
      Encoding encoding,
      Arena arena) {
    long n = 9;
    long k = 3L * encoding.blockElements();
    long bytes = 3L * encoding.blockBytes() * n;
    float[] specials = {0.5f, -0.25f, 8f, 3e38f, -1e-38f, 1e-45f, 65504f, Float.NaN};
    for (Encoding wType : PLAIN) {
      MemorySegment w = matrices.numbers(wType, n * k, false);
      for (long i = 0; i < 2 * k; i++) {
        Numbers.put(wType, w, i, i < k ? specials[(int) (i / 32 % specials.length)] : 0.5f);
      }
      for (long i = 2 * k; i < 3 * k; i += 17) {
        Numbers.put(wType, w, i, specials[(int) (i % specials.length)]);
      }
      for (long i = 3 * k; i < 4 * k; i++) {
        Numbers.put(wType, w, i, Math.scalb(1f, (int) (i % 40) - 20) * 0.99999994f);
      }
      Matrix expected = Matrix.builder(n, k, encoding, arena.allocate(bytes)).build();
      Matrix found = Matrix.builder(n, k, encoding, arena.allocate(bytes)).build();
      reference.quantize(expected, QuantizeRule.OF_THE_BLOCK, w, wType);
      backend.quantize(found, QuantizeRule.OF_THE_BLOCK, w, wType);
      assertRanItself(backend, row, "from " + wType);
      assertThat(found.codes().mismatch(expected.codes())).as("from " + wType).isEqualTo(-1);
    }
  }

  /** Numbers with a block of zeros among them. */
  private static MemorySegment numbers(TestMatrices matrices, Encoding type, long count) {
    MemorySegment w = matrices.numbers(type, count, false);
    w.asSlice(0, Math.min(w.byteSize(), 264L * type.bits() / 8)).fill((byte) 0);
    return w;
  }

  private void pack(NativeBackend backend, NativeBackend.Row row, Encoding encoding, Arena arena) {
    new TestMatrices(arena, 4, false)
        .of(encoding)
        .forEach(
            (what, m) -> {
              try (PackedWeight packed = backend.pack(m)) {
                if (row.operation() == Operation.PACK) {
                  assertRanItself(backend, row, what);
                }
                Matrix into = m.withMemory(memory -> arena.allocate(memory.byteSize(), 64));
                backend.unpack(packed, into);
                if (row.operation() == Operation.UNPACK) {
                  assertRanItself(backend, row, what);
                }
                assertSameParts(what, into, m);
              }
            });
  }

  /** Every code and every parameter; what lies between them belongs to nobody. */
  static void assertSameParts(String what, Matrix found, Matrix expected) {
    boolean gaps = expected.scaleOrder() != ScaleOrder.STRIDED;
    expected
        .memory()
        .forEach(
            (part, memory) -> {
              if (!part.equals("codes") && !(part.equals("scales") && gaps)) {
                assertThat(found.memory().get(part).mismatch(memory))
                    .as(part + " of " + what)
                    .isEqualTo(-1);
              }
            });
    if (expected.encoding().isBlock()) {
      assertThat(found.codes().mismatch(expected.codes())).as(what).isEqualTo(-1);
      return;
    }
    for (long row = 0; row < expected.n(); row++) {
      for (long column = 0; column < expected.k(); column++) {
        if (codeBits(found, row, column) != codeBits(expected, row, column)) {
          fail(what + ": code (" + row + ", " + column + ") is another");
        }
        if (gaps
            && Float.compare(
                    MatrixValues.storedScale(found, row, column),
                    MatrixValues.storedScale(expected, row, column))
                != 0) {
          fail(what + ": scale of (" + row + ", " + column + ") is another");
        }
      }
    }
  }

  private static int codeBits(Matrix m, long row, long column) {
    return m.encoding().isPlain()
        ? Float.floatToRawIntBits(MatrixValues.decode(m, row, column))
        : MatrixValues.code(m, row, column);
  }

  private void linear(
      NativeBackend backend, NativeBackend.Row row, Encoding encoding, Arena arena) {
    Compute compute =
        Compute.multiplies().stream()
            .filter(c -> c.id() == row.compute())
            .findFirst()
            .orElseThrow(() -> new AssertionError("no compute type " + row.compute() + " in Java"));
    int done = 0;
    for (Map.Entry<String, Matrix> each :
        new TestMatrices(arena, 5, true).of(encoding).entrySet()) {
      Matrix m = each.getValue();
      if (refused(m, compute, backend)) {
        continue;
      }
      try (PackedWeight packed = backend.pack(m);
          PackedWeight definition = reference.pack(m)) {
        for (int rows : new int[] {1, 2, 5, 17}) {
          String what = each.getKey() + " M=" + rows;
          Encoding type = PLAIN.get(done % 3);
          try {
            compare(backend, packed, definition, rows, type, compute, what, arena);
          } catch (GatunException e) {
            fail(what + ": " + e.getMessage(), e);
          }
          assertRan(backend, row, each.getKey());
          done++;
        }
      }
    }
    assertThat(done).isPositive();
  }

  private void assertRan(NativeBackend backend, NativeBackend.Row row, String matrix) {
    NativeBackend.Row last = backend.last();
    if (last.index() == row.index()) {
      ran = true;
    } else {
      assertThat(fallsBack(row, last, matrix)).as(matrix + " ran " + last).isTrue();
    }
  }

  private void assertRanItself(NativeBackend backend, NativeBackend.Row row, String what) {
    assertThat(backend.last()).as(what).isEqualTo(row);
    ran = true;
  }

  /**
   * A tier's kernel takes what could be laid out in panels; the rest is the tier's below. Groups of
   * whole steps always can be.
   */
  private static boolean fallsBack(NativeBackend.Row row, NativeBackend.Row ran, String matrix) {
    return ran.operation() == row.operation()
        && ran.compute() == row.compute()
        && ran.encoding() == row.encoding()
        && ran.isa() < row.isa()
        && !ALWAYS_IN_PANELS.contains(matrix);
  }

  /** What the definition does not define, the native backend does not run either. */
  private boolean refused(Matrix m, Compute compute, NativeBackend backend) {
    if (reference.refuses(Operation.LINEAR, m, Optional.of(compute)).isEmpty()) {
      return false;
    }
    assertThat(backend.refuses(Operation.LINEAR, m, Optional.of(compute))).isPresent();
    return true;
  }

  /** The Frobenius norms of what was expected and of what was found beside it. */
  private static final class Distance {
    private double difference;
    private double size;

    void add(double found, double expected) {
      difference += (found - expected) * (found - expected);
      size += expected * expected;
    }

    void assertAtMost(double bound, String what) {
      assertThat(Math.sqrt(difference))
          .as(what + ", norm " + Math.sqrt(size))
          .isLessThanOrEqualTo(bound * Math.sqrt(size));
    }
  }

  /** Calls of so many rows until {@link #MEASURED_ROWS} of them have been compared. */
  private void compare(
      NativeBackend backend,
      PackedWeight packed,
      PackedWeight definition,
      int rows,
      Encoding type,
      Compute compute,
      String what,
      Arena arena) {
    SplittableRandom random = new SplittableRandom(rows);
    Distance distance = new Distance();
    for (int done = 0; done < MEASURED_ROWS; done += rows) {
      multiply(backend, packed, definition, rows, type, compute, what, random, distance, arena);
    }
    double rounding =
        switch (type) {
          case F16 -> 0x1p-11;
          case BF16 -> 0x1p-8;
          default -> 0;
        };
    double bound = compute == Compute.BF16 ? 4e-3 : 1e-6 * Math.sqrt((double) packed.k());
    distance.assertAtMost(bound + rounding, what + " of " + type);
  }

  /** One call each. */
  private void multiply(
      NativeBackend backend,
      PackedWeight packed,
      PackedWeight definition,
      int rows,
      Encoding type,
      Compute compute,
      String what,
      SplittableRandom random,
      Distance distance,
      Arena arena) {
    long n = packed.n();
    long k = packed.k();
    long ldx = k + 3;
    long ldy = n + 5;
    MemorySegment x = output(rows * ldx, type, arena);
    for (long i = 0; i < rows * ldx; i++) {
      Numbers.put(type, x, i, random.nextDouble() * 2 - 1);
    }
    MemorySegment bias = null;
    if (rows != 2) {
      bias = arena.allocate(n * Float.BYTES, 64);
      for (long i = 0; i < n; i++) {
        bias.setAtIndex(ValueLayout.JAVA_FLOAT, i, (float) random.nextDouble());
      }
    }
    MemorySegment expected = output(rows * ldy, Encoding.F32, arena).fill((byte) 0x7B);
    MemorySegment found = output(rows * ldy, type, arena).fill((byte) 0x7B);
    reference.linear(
        definition,
        LinearCall.of(x, type, ldx, rows, expected, Encoding.F32, ldy)
            .bias(bias)
            .compute(compute)
            .threads(1));
    backend.linear(
        packed,
        LinearCall.of(x, type, ldx, rows, found, type, ldy)
            .bias(bias)
            .compute(compute)
            .threads(THREADS));
    for (long i = 0; i < rows; i++) {
      for (long j = 0; j < n; j++) {
        distance.add(
            Numbers.get(type, found, i * ldy + j),
            Numbers.get(Encoding.F32, expected, i * ldy + j));
      }
      long gap = i * ldy + n;
      long bytes = type.bits() / 8;
      for (long b = gap * bytes; b < (i + 1) * ldy * bytes; b++) {
        assertThat(found.get(ValueLayout.JAVA_BYTE, b)).as(what + ": gap").isEqualTo((byte) 0x7B);
      }
    }
  }

  private void convert(
      NativeBackend backend, NativeBackend.Row row, Encoding encoding, Arena arena) {
    List<Encoding> types =
        Arrays.stream(Encoding.values()).filter(e -> e.isPlain() || Fp8.is(e)).toList();
    for (Encoding from : types) {
      MemorySegment src = everyNumber(from, arena);
      long count = src.byteSize() / (from.bits() / 8);
      for (boolean saturate : new boolean[] {false, true}) {
        MemorySegment expected = output(count, encoding, arena);
        MemorySegment found = output(count, encoding, arena);
        reference.convert(src, from, expected, encoding, count, saturate);
        backend.convert(src, from, found, encoding, count, saturate);
        String what = from + " to " + encoding + (saturate ? ", saturated" : "");
        assertRanItself(backend, row, what);
        assertSame(what, encoding, found, expected);
      }
    }
  }

  /** All codes of up to 16 bits; floats of every exponent, with ties and their neighbours. */
  private static MemorySegment everyNumber(Encoding type, Arena arena) {
    if (type != Encoding.F32) {
      int count = 1 << type.bits();
      MemorySegment all = output(count, type, arena);
      for (int i = 0; i < count; i++) {
        if (type.bits() == 8) {
          all.set(ValueLayout.JAVA_BYTE, i, (byte) i);
        } else {
          all.setAtIndex(ValueLayout.JAVA_SHORT, i, (short) i);
        }
      }
      return all;
    }
    int highs = 1 << 16;
    int[] lows = {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF};
    MemorySegment all = output((long) highs * lows.length, type, arena);
    for (int high = 0; high < highs; high++) {
      for (int i = 0; i < lows.length; i++) {
        all.setAtIndex(ValueLayout.JAVA_INT, (long) high * lows.length + i, high << 16 | lows[i]);
      }
    }
    return all;
  }

  private static MemorySegment output(long count, Encoding type, Arena arena) {
    return arena
        .allocate(Math.max(1, count * type.bits() / 8), 64)
        .asSlice(0, count * type.bits() / 8);
  }

  private static MemorySegment copy(MemorySegment memory, Arena arena) {
    return arena.allocate(memory.byteSize(), 64).copyFrom(memory);
  }

  /** The same bytes, but that one NaN is as good as another. */
  private static void assertSame(
      String what, Encoding type, MemorySegment found, MemorySegment expected) {
    long at = found.mismatch(expected);
    if (at < 0) {
      return;
    }
    int size = type.bits() / 8;
    for (long i = at / size; i < expected.byteSize() / size; i++) {
      float e = Numbers.get(type, expected, i);
      float f = Numbers.get(type, found, i);
      if (Float.floatToIntBits(e) != Float.floatToIntBits(f)) {
        fail(what + ": element " + i + ": found " + f + ", expected " + e);
      }
    }
  }
}
