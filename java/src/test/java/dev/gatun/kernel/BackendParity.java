package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.sun.management.ThreadMXBean;
import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestInstance;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * What every backend must share with the definition: the same bits from codecs, the same numbers
 * from {@code linear} within the bounds of the order of summation, and the same manners. A
 * backend's test extends it.
 */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
public abstract class BackendParity {
  private static final List<Encoding> PLAIN = List.of(Encoding.F32, Encoding.F16, Encoding.BF16);
  private final Backend reference = new ReferenceBackend();

  /** The backend under test, with at least two threads. */
  protected abstract Backend backend();

  /** What the name of a kernel of this backend ends in, after two underscores; an expression. */
  protected abstract String isa();

  /** Rows of x that every product is tried with. */
  protected List<Long> rows() {
    return List.of(1L, 2L, 5L, 13L);
  }

  /** The relative error that a product of this compute type may have, y in floats. */
  protected double bound(Compute compute, long rows, long k) {
    return compute == Compute.BF16 ? 4e-3 : 1e-6 * Math.sqrt((double) Math.max(1, k));
  }

  /** Whether infinity in a row of x may come out as NaN. */
  protected boolean infinityMayBeNan(Compute compute) {
    return false;
  }

  /** Whether a refusal to unpack is a failure. */
  protected boolean isKept(RuntimeException refusal) {
    return true;
  }

  private void assertIsOwn(String kernel) {
    assertThat(kernel).matches(".*__" + isa());
  }

  Stream<Samples.Sample> samples() {
    return Samples.all().stream()
        .filter(s -> backend().refuses(Operation.PACK, s.matrix(), Optional.empty()).isEmpty());
  }

  private static MemorySegment bytes(long count) {
    return MemorySegment.ofArray(new byte[Math.toIntExact(count)]);
  }

  /** The same bits, all NaN being one. */
  private static void assertSame(
      String what, MemorySegment actual, MemorySegment expected, Encoding type) {
    long count = expected.byteSize() * 8 / type.bits();
    if (actual.mismatch(expected) < 0) {
      return;
    }
    for (long i = 0; i < count; i++) {
      float a = Numbers.get(type, actual, i);
      float e = Numbers.get(type, expected, i);
      if (!(Float.isNaN(a) && Float.isNaN(e))) {
        assertThat(Float.floatToRawIntBits(a))
            .as("%s: number %d, found %s, expected %s", what, i, a, e)
            .isEqualTo(Float.floatToRawIntBits(e));
      }
    }
  }

  private void assertRan(String kernel, Operation operation, Encoding encoding) {
    assertIsOwn(kernel);
    assertThat(backend().kernels())
        .anyMatch(
            k -> k.name().equals(kernel) && k.operation() == operation && k.encoding() == encoding);
  }

  @ParameterizedTest
  @MethodSource("samples")
  void dequantizesToTheSameBits(Samples.Sample sample) {
    Matrix m = sample.matrix();
    for (Encoding type : PLAIN) {
      long skip = m.n() / 3;
      long size = (m.n() - skip) * m.k() * type.bits() / 8;
      MemorySegment expected = bytes(size);
      MemorySegment actual = bytes(size);
      reference.dequantize(m, skip, m.n() - skip, expected, type);
      String kernel = backend().dequantize(m, skip, m.n() - skip, actual, type);
      assertSame(sample + " to " + type, actual, expected, type);
      assertRan(kernel, Operation.DEQUANTIZE, m.encoding());
    }
  }

  @ParameterizedTest
  @MethodSource("samples")
  void gathersTheSameRows(Samples.Sample sample) {
    Matrix m = sample.matrix();
    if (m.n() == 0) {
      return;
    }
    long[] ids = {m.n() - 1, 0, m.n() / 2, 0};
    for (Encoding type : PLAIN) {
      MemorySegment expected = bytes(ids.length * m.k() * type.bits() / 8);
      MemorySegment actual = bytes(expected.byteSize());
      reference.embedding(m, ids, expected, type);
      String kernel = backend().embedding(m, ids, actual, type);
      assertSame(sample + " to " + type, actual, expected, type);
      assertRan(kernel, Operation.EMBEDDING, m.encoding());
    }
  }

  @ParameterizedTest
  @MethodSource("samples")
  void unpacksWhatWasPacked(Samples.Sample sample) {
    Matrix m = sample.matrix();
    Matrix copy = m.withMemory(data -> bytes(data.byteSize()).copyFrom(data));
    Matrix empty = m.withMemory(data -> bytes(data.byteSize()));
    try (PackedWeight packed = backend().pack(copy)) {
      // The matrix's memory is not needed afterwards.
      copy.memory().values().forEach(data -> data.fill((byte) 0x55));
      backend().unpack(packed, empty);
    } catch (GatunException refusal) {
      if (isKept(refusal)) {
        throw refusal;
      }
      return;
    }
    NativeParityTest.assertSameParts(sample.toString(), empty, m);
  }

  @ParameterizedTest
  @MethodSource("samples")
  void multipliesLikeTheDefinition(Samples.Sample sample) {
    Matrix m = sample.matrix();
    try (PackedWeight packed = backend().pack(m);
        PackedWeight expected = reference.pack(m)) {
      int turn = 0;
      for (Compute compute : Compute.multiplies()) {
        if (backend().refuses(Operation.LINEAR, m, Optional.of(compute)).isPresent()
            || reference.refuses(Operation.LINEAR, m, Optional.of(compute)).isPresent()) {
          continue;
        }
        for (long rows : rows()) {
          Encoding xType = PLAIN.get(turn % 3);
          // Random blocks may be too large for F16.
          Encoding yType = m.encoding().isBlock() ? Encoding.F32 : PLAIN.get(turn / 3 % 3);
          compareLinear(
              sample.toString(), m, packed, expected, rows, xType, yType, compute, turn % 2 == 1);
          turn++;
        }
        String kernel = packed.kernel(compute, 1);
        assertIsOwn(kernel);
        assertThat(backend().kernels())
            .anyMatch(
                k ->
                    k.name().equals(kernel)
                        && k.encoding() == m.encoding()
                        && k.compute().equals(Optional.of(compute)));
      }
    }
  }

  /** One multiply with gaps between the rows of x and y, which must stay as they are. */
  protected void compareLinear(
      String what,
      Matrix m,
      PackedWeight packed,
      PackedWeight expected,
      long rows,
      Encoding xType,
      Encoding yType,
      Compute compute,
      boolean biased) {
    long gap = rows % 3;
    long ldy = m.n() + gap;
    MemorySegment x = Samples.x(rows, m.k(), xType, gap);
    MemorySegment bias = biased ? Samples.x(1, m.n(), Encoding.F32, 0) : null;
    MemorySegment y = bytes(rows * ldy * yType.bits() / 8).fill((byte) 0x3C);
    MemorySegment exact = bytes(rows * ldy * 4);
    backend()
        .linear(
            packed,
            LinearCall.of(x, xType, m.k() + gap, rows, y, yType, ldy).bias(bias).compute(compute));
    reference.linear(
        expected,
        LinearCall.of(x, xType, m.k() + gap, rows, exact, Encoding.F32, ldy)
            .bias(bias)
            .compute(compute)
            .threads(1));
    double error = 0;
    double size = 0;
    for (long row = 0; row < rows; row++) {
      for (long n = 0; n < m.n(); n++) {
        double e = Numbers.get(Encoding.F32, exact, row * ldy + n);
        double d = Numbers.get(yType, y, row * ldy + n) - e;
        error += d * d;
        size += e * e;
      }
      for (long n = m.n() * yType.bits() / 8; n < ldy * yType.bits() / 8; n++) {
        assertThat(y.get(ValueLayout.JAVA_BYTE, row * ldy * yType.bits() / 8 + n))
            .as("%s: byte %d between rows of y", what, n)
            .isEqualTo((byte) 0x3C);
      }
    }
    double rounding = yType == Encoding.F32 ? 0 : yType == Encoding.F16 ? 0x1p-11 : 0x1p-8;
    double bound = bound(compute, rows, m.k()) + rounding;
    assertThat(Math.sqrt(error))
        .as("%s, %s, %d rows, x %s, y %s", what, compute, rows, xType, yType)
        .isLessThanOrEqualTo(bound * Math.sqrt(size));
  }

  @Test
  void nanAndInfinityReachTheirRowOnly() {
    Matrix m = Samples.encoding(Encoding.NF4, 40, 96).matrix();
    Matrix plus = Samples.encoding(Encoding.U8, 40, 96).matrix(); // no weight is negative
    for (Compute compute : Compute.multiplies()) {
      for (float special : new float[] {Float.NaN, Float.POSITIVE_INFINITY}) {
        Matrix weight = Float.isNaN(special) ? m : plus;
        if (backend().refuses(Operation.LINEAR, weight, Optional.of(compute)).isPresent()) {
          continue;
        }
        for (int rows : new int[] {1, 3, 14}) {
          MemorySegment x = Samples.x(rows, 96, Encoding.F32, 0);
          Numbers.put(Encoding.F32, x, (rows - 1) * 96L + 50, special);
          MemorySegment y = bytes(rows * 40L * 4);
          MemorySegment expected = bytes(rows * 40L * 4);
          try (PackedWeight packed = backend().pack(weight);
              PackedWeight definition = reference.pack(weight)) {
            backend()
                .linear(
                    packed,
                    LinearCall.of(x, Encoding.F32, 96, rows, y, Encoding.F32, 40).compute(compute));
            reference.linear(
                definition,
                LinearCall.of(x, Encoding.F32, 96, rows, expected, Encoding.F32, 40)
                    .compute(compute)
                    .threads(1));
          }
          for (long i = 0; i < rows * 40L; i++) {
            float a = Numbers.get(Encoding.F32, y, i);
            float e = Numbers.get(Encoding.F32, expected, i);
            boolean same =
                Float.isNaN(a) == Float.isNaN(e) || (Float.isNaN(a) && infinityMayBeNan(compute));
            assertThat(Float.isFinite(a) == Float.isFinite(e) && same)
                .as(
                    "%s of %s rows with %s: output %d, found %s, expected %s",
                    compute, rows, special, i, a, e)
                .isTrue();
          }
        }
      }
    }
  }

  /** Every 16-bit pattern, and floats around every boundary of the narrower types. */
  private static MemorySegment numbers(Encoding type) {
    if (type.bits() <= 16) {
      MemorySegment all = bytes((1L << type.bits()) * type.bits() / 8);
      for (int i = 0; i < 1 << type.bits(); i++) {
        if (type.bits() == 8) {
          all.set(ValueLayout.JAVA_BYTE, i, (byte) i);
        } else {
          all.set(ValueLayout.JAVA_SHORT_UNALIGNED, 2L * i, (short) i);
        }
      }
      return all;
    }
    List<Integer> bits = new ArrayList<>();
    for (int high = 0; high < 1 << 16; high++) {
      for (int low : new int[] {0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF}) {
        bits.add(high << 16 | low);
      }
    }
    new SplittableRandom(7).ints(20_000).forEach(bits::add);
    return MemorySegment.ofArray(bits.stream().mapToInt(Integer::intValue).toArray());
  }

  @ParameterizedTest
  @EnumSource(Encoding.class)
  void convertsToTheSameBits(Encoding to) {
    if (!to.isPlain() && !Fp8.is(to)) {
      return;
    }
    for (Encoding from : Encoding.values()) {
      if (!from.isPlain() && !Fp8.is(from)) {
        continue;
      }
      MemorySegment src = numbers(from);
      long count = src.byteSize() * 8 / from.bits();
      for (boolean saturate : new boolean[] {false, true}) {
        MemorySegment expected = bytes(count * to.bits() / 8);
        MemorySegment actual = bytes(count * to.bits() / 8);
        reference.convert(src, from, expected, to, count, saturate);
        backend().convert(src, from, actual, to, count, saturate);
        assertSame(from + " to " + to + (saturate ? " saturated" : ""), actual, expected, to);
      }
    }
  }

  static Stream<Encoding> quantized() {
    return Arrays.stream(Encoding.values())
        .filter(e -> !e.isPlain() && !e.isBlock() && e != Encoding.F8_E8M0);
  }

  @ParameterizedTest
  @MethodSource("quantized")
  void quantizesToTheSameBits(Encoding encoding) {
    long k = 80;
    for (Granularity granularity :
        List.of(
            Granularity.perTensor(11, k),
            Granularity.perChannel(k),
            Granularity.perGroup(k, 32),
            new Granularity.Flat(64),
            new Granularity.Tile(4, 32, 3, 1))) {
      for (Encoding arithmetic : PLAIN) {
        Matrix m =
            Samples.scaled(Samples.encoding(encoding, 11, k).matrix(), granularity, Encoding.F32);
        Optional<String> refused = backend().refuses(Operation.QUANTIZE, m, Optional.empty());
        assumeTrue(refused.isEmpty(), refused::get);
        MemorySegment w = Samples.x(11, k, arithmetic, 0);
        w.asSlice(k * arithmetic.bits() / 8, 64L * arithmetic.bits() / 8).fill((byte) 0);
        for (QuantizeRule rule :
            List.of(
                new QuantizeRule(arithmetic, false, 7, 0, -300, 300, false, -1),
                new QuantizeRule(arithmetic, true, 1, 1e-6f, -7, 7, false, 0),
                new QuantizeRule(arithmetic, false, 127, 0, -127, 127, true, -1))) {
          Matrix expected = m.withMemory(data -> bytes(data.byteSize()).copyFrom(data));
          Matrix actual = m.withMemory(data -> bytes(data.byteSize()).copyFrom(data));
          reference.quantize(expected, rule, w, arithmetic);
          String kernel = backend().quantize(actual, rule, w, arithmetic);
          String what = encoding + " " + granularity + " " + rule;
          assertSame(
              what,
              actual.scales().orElseThrow().data(),
              expected.scales().orElseThrow().data(),
              Encoding.F32);
          assertThat(actual.codes().mismatch(expected.codes()))
              .as("%s: first byte that differs", what)
              .isEqualTo(-1);
          assertRan(kernel, Operation.QUANTIZE, encoding);
        }
      }
    }
  }

  /** Large enough that several threads have work. */
  private static Matrix large() {
    return Samples.scaled(
        Samples.encoding(Encoding.NF4, 650, 512).matrix(), new Granularity.Flat(64), Encoding.F32);
  }

  @Test
  void givesTheSameBitsAgainAndUnderConcurrentCallers() throws Exception {
    Matrix m = large();
    MemorySegment x = Samples.x(17, m.k(), Encoding.F32, 0);
    try (PackedWeight packed = backend().pack(m);
        ExecutorService callers = Executors.newFixedThreadPool(4)) {
      MemorySegment first = linear(packed, m, x);
      List<Future<MemorySegment>> others = new ArrayList<>();
      for (int i = 0; i < 16; i++) {
        others.add(callers.submit(() -> linear(packed, m, x)));
      }
      for (Future<MemorySegment> other : others) {
        assertThat(other.get().mismatch(first)).isEqualTo(-1);
      }
    }
  }

  private MemorySegment linear(PackedWeight packed, Matrix m, MemorySegment x) {
    MemorySegment y = bytes(17 * m.n() * 4);
    backend().linear(packed, LinearCall.of(x, Encoding.F32, m.k(), 17, y, Encoding.F32, m.n()));
    return y;
  }

  @Test
  void takesMemoryOfOneThread() {
    Matrix m = large();
    MemorySegment x = Samples.x(17, m.k(), Encoding.F32, 0);
    try (Arena confined = Arena.ofConfined();
        PackedWeight packed = backend().pack(m.withMemory(data -> copy(data, confined)))) {
      MemorySegment y = confined.allocate(17 * m.n() * 4);
      backend()
          .linear(
              packed,
              LinearCall.of(copy(x, confined), Encoding.F32, m.k(), 17, y, Encoding.F32, m.n()));
      assertThat(y.mismatch(linear(packed, m, x))).isEqualTo(-1);
    }
  }

  private static MemorySegment copy(MemorySegment data, Arena arena) {
    return arena.allocate(data.byteSize(), 64).copyFrom(data);
  }

  @Test
  void allocatesNothingOnceWarm() {
    Matrix m = large();
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    for (Compute compute : Compute.multiplies()) {
      if (backend().refuses(Operation.LINEAR, m, Optional.of(compute)).isPresent()) {
        continue;
      }
      for (int rows : new int[] {1, 20}) {
        MemorySegment x = Samples.x(rows, m.k(), Encoding.F32, 0);
        MemorySegment y = bytes(rows * m.n() * 4);
        try (PackedWeight packed = backend().pack(m)) {
          LinearCall<MemorySegment> call =
              LinearCall.of(x, Encoding.F32, m.k(), rows, y, Encoding.F32, m.n()).compute(compute);
          long least = Long.MAX_VALUE;
          // Code that is not compiled yet may allocate; the best of some rounds is warm.
          for (int round = 0; round < 3000 && least > 0; round++) {
            long before = threads.getTotalThreadAllocatedBytes();
            for (int i = 0; i < 5; i++) {
              backend().linear(packed, call);
            }
            least = Math.min(least, threads.getTotalThreadAllocatedBytes() - before);
          }
          assertThat(least).as("%s, %d rows", compute, rows).isZero();
        }
      }
    }
  }

  @Test
  void refusesAClosedWeight() {
    Matrix m = Samples.encoding(Encoding.I8, 8, 16).matrix();
    PackedWeight packed = backend().pack(m);
    packed.close();
    packed.close();
    MemorySegment x = Samples.x(1, 16, Encoding.F32, 0);
    MemorySegment y = bytes(32);
    assertThatThrownBy(
            () ->
                backend().linear(packed, LinearCall.of(x, Encoding.F32, 16, 1, y, Encoding.F32, 8)))
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining("closed");
    assertThatThrownBy(() -> packed.kernel(Compute.F32, 1))
        .isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> backend().unpack(packed, m)).isInstanceOf(IllegalStateException.class);
  }

  @Test
  void refusesAnotherBackendsWeight() {
    Matrix m = Samples.encoding(Encoding.I8, 8, 16).matrix();
    try (PackedWeight packed = reference.pack(m)) {
      assertThatThrownBy(() -> backend().unpack(packed, m))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("another backend");
    }
  }
}
