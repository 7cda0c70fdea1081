package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import net.jqwik.api.Arbitraries;
import net.jqwik.api.Arbitrary;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.Provide;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.LongRange;

/** Shapes that nobody thought of, compared with the definition. A backend's test extends it. */
public abstract class BackendShapes {
  private static final Backend REFERENCE = new ReferenceBackend();

  /** The backend under test. */
  protected abstract Backend backend();

  @Provide
  Arbitrary<Encoding> codes() {
    List<Encoding> all =
        Arrays.stream(Encoding.values())
            .filter(e -> !e.isBlock() && !e.isPlain() && e != Encoding.F8_E8M0)
            .toList();
    return Arbitraries.of(all);
  }

  @Property(tries = 40)
  void multipliesAnyShape(
      @ForAll("codes") Encoding encoding,
      @ForAll @LongRange(min = 1, max = 140) long n,
      @ForAll @LongRange(min = 1, max = 600) long k,
      @ForAll @IntRange(min = 1, max = 30) int rows,
      @ForAll @IntRange(min = 0, max = 3) int granularity,
      @ForAll @LongRange(min = 1, max = 150) long block,
      @ForAll Compute compute) {
    Granularity shared =
        switch (granularity) {
          case 0 -> Granularity.perTensor(n, k);
          case 1 -> Granularity.perGroup(k, block);
          case 2 -> new Granularity.Flat(block);
          default -> new Granularity.Tile(block, 32, Math.ceilDiv(k, 32L), 1);
        };
    Matrix m = Samples.scaled(Samples.encoding(encoding, n, k).matrix(), shared, Encoding.F32);
    Optional<Compute> with = Optional.of(compute);
    if (REFERENCE.refuses(Operation.LINEAR, m, with).isPresent()
        || backend().refuses(Operation.LINEAR, m, with).isPresent()) {
      return;
    }
    MemorySegment x = Samples.x(rows, k, Encoding.F32, 0);
    float[] found = new float[Math.toIntExact(rows * n)];
    float[] expected = new float[found.length];
    try (PackedWeight mine = backend().pack(m);
        PackedWeight theirs = REFERENCE.pack(m)) {
      multiply(backend(), mine, x, rows, compute, found);
      multiply(REFERENCE, theirs, x, rows, compute, expected);
    }
    double error = 0;
    double size = 0;
    for (int i = 0; i < found.length; i++) {
      error += Math.pow((double) found[i] - expected[i], 2);
      size += Math.pow(expected[i], 2);
    }
    double bound = bound(compute, rows, k);
    assertThat(Math.sqrt(error)).isLessThanOrEqualTo(bound * Math.sqrt(size));
  }

  /** The relative error that a product of this compute type may have. */
  protected double bound(Compute compute, long rows, long k) {
    return compute == Compute.BF16 ? 4e-3 : 1e-6 * Math.sqrt((double) k);
  }

  private static void multiply(
      Backend backend, PackedWeight w, MemorySegment x, int rows, Compute compute, float[] y) {
    MemorySegment out = MemorySegment.ofArray(y);
    backend.linear(
        w, LinearCall.of(x, Encoding.F32, w.k(), rows, out, Encoding.F32, w.n()).compute(compute));
  }

  @Property(tries = 40)
  void dequantizesAnyShape(
      @ForAll("codes") Encoding encoding,
      @ForAll @LongRange(min = 1, max = 40) long n,
      @ForAll @LongRange(min = 1, max = 5000) long k,
      @ForAll @LongRange(min = 1, max = 300) long block) {
    Matrix m =
        Samples.scaled(
            Samples.encoding(encoding, n, k).matrix(), new Granularity.Flat(block), Encoding.F32);
    MemorySegment found = MemorySegment.ofArray(new float[Math.toIntExact(n * k)]);
    MemorySegment expected = MemorySegment.ofArray(new float[Math.toIntExact(n * k)]);
    backend().dequantize(m, 0, n, found, Encoding.F32);
    REFERENCE.dequantize(m, 0, n, expected, Encoding.F32);
    long at = found.mismatch(expected);
    assertThat(at)
        .as(() -> "found " + Numbers.get(Encoding.F32, found, at / 4) + " at " + at / 4)
        .isEqualTo(-1);
  }
}
