package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.GgufCodes;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** One rule lays codes out anew: it takes what can be held exactly, and nothing else. */
class RelayTest {
  private static final int N = 3;
  private static final int K = 128;
  private final Random random = new Random(17);

  private static MemorySegment bytes(long count) {
    return MemorySegment.ofArray(new byte[Math.toIntExact(count)]);
  }

  private static Matrix.Values values(Encoding type, long count) {
    return new Matrix.Values(type, bytes(count * type.bits() / 8));
  }

  /** Codes with one scale of a type per group, without numbers. */
  private static Matrix grouped(Encoding codes, CodeOrder order, int group, Encoding scales) {
    return Matrix.builder(N, K, codes, bytes((long) N * K * codes.bits() / 8))
        .codeOrder(order)
        .granularity(Granularity.perGroup(K, group))
        .scales(values(scales, (long) N * K / group))
        .build();
  }

  private static Matrix withOffsets(Matrix m) {
    long count = m.scales().orElseThrow().data().byteSize() * 8 / 32;
    return m.toBuilder().subtracted(values(Encoding.F32, count)).build();
  }

  private static Matrix blocks(Encoding encoding) {
    long count = (long) N * K / encoding.blockElements();
    return Matrix.builder(N, K, encoding, bytes(count * encoding.blockBytes())).build();
  }

  /** Random codes; scales and offsets that every float type holds. */
  private Matrix filled(Matrix m) {
    if (m.encoding().isBlock()) {
      GgufCodes layout = Objects.requireNonNull(GgufCodes.of(m.encoding()));
      for (long row = 0; row < N; row++) {
        for (int k = 0; k < K; k++) {
          long at = Codes.block(m, row, k);
          int element = k % m.encoding().blockElements();
          layout.putCode(m.codes(), at, element, random.nextInt(layout.levels().length));
          if (k % layout.group() == 0) {
            layout.putScale(m.codes(), at, element, scale());
            if (layout.hasMinimum()) {
              layout.putMinimum(m.codes(), at, -4 * scale());
            }
          }
        }
      }
      return m;
    }
    byte[] codes = new byte[Math.toIntExact(m.codes().byteSize())];
    random.nextBytes(codes);
    m.codes().copyFrom(MemorySegment.ofArray(codes));
    m.scales().ifPresent(this::fill);
    m.offsets().ifPresent(this::fill);
    return m;
  }

  private void fill(Matrix.Values values) {
    for (long i = 0; i < values.data().byteSize() * 8 / values.type().bits(); i++) {
      Numbers.put(values.type(), values.data(), i, scale());
    }
  }

  private float scale() {
    return Math.scalb(1f, -random.nextInt(5));
  }

  static Stream<Arguments> pairs() {
    List<Arguments> pairs = new ArrayList<>();
    Matrix words = grouped(Encoding.U4, CodeOrder.WORDS, 128, Encoding.F16);
    Matrix signed = words.toBuilder().zeroPoint(8).build();
    Matrix nibbles = grouped(Encoding.U4, CodeOrder.LOW_FIRST, 32, Encoding.F32);
    Matrix fp4 = grouped(Encoding.F4_E2M1, CodeOrder.HIGH_FIRST, 32, Encoding.F8_E8M0);
    Matrix nv = grouped(Encoding.F4_E2M1, CodeOrder.HIGH_FIRST, 16, Encoding.F8_E4M3);
    Matrix rows = grouped(Encoding.I8, CodeOrder.LOW_FIRST, K, Encoding.BF16);
    pairs.add(Arguments.of("4 bits less 8 as Q4_0", signed, blocks(Encoding.Q4_0), true));
    pairs.add(Arguments.of("Q4_0 as groups", blocks(Encoding.Q4_0), withOffsets(nibbles), true));
    pairs.add(Arguments.of("Q4_1 as groups", blocks(Encoding.Q4_1), withOffsets(nibbles), true));
    pairs.add(Arguments.of("groups as Q4_1", withOffsets(nibbles), blocks(Encoding.Q4_1), true));
    pairs.add(Arguments.of("groups as Q5_1", withOffsets(nibbles), blocks(Encoding.Q5_1), true));
    pairs.add(Arguments.of("Q4_0 in Q5_0", blocks(Encoding.Q4_0), blocks(Encoding.Q5_0), true));
    pairs.add(Arguments.of("Q5_0 in Q8_0", blocks(Encoding.Q5_0), blocks(Encoding.Q8_0), true));
    pairs.add(Arguments.of("MX as MXFP4", fp4, blocks(Encoding.MXFP4), true));
    pairs.add(Arguments.of("MXFP4 as MX", blocks(Encoding.MXFP4), fp4, true));
    pairs.add(Arguments.of("NV as NVFP4", nv, blocks(Encoding.NVFP4), true));
    pairs.add(Arguments.of("NVFP4 as NV", blocks(Encoding.NVFP4), nv, true));
    pairs.add(Arguments.of("rows as Q8_0", rows, blocks(Encoding.Q8_0), true));
    pairs.add(Arguments.of("Q8_0 in Q4_0", blocks(Encoding.Q8_0), blocks(Encoding.Q4_0), false));
    pairs.add(Arguments.of("Q8_0 as rows", blocks(Encoding.Q8_0), rows, false));
    pairs.add(Arguments.of("4 bits as Q4_0", words, blocks(Encoding.Q4_0), false));
    pairs.add(Arguments.of("offsets as Q4_0", withOffsets(nibbles), blocks(Encoding.Q4_0), false));
    pairs.add(
        Arguments.of("IQ4_NL as Q4_1", blocks(Encoding.IQ4_NL), blocks(Encoding.Q4_1), false));
    pairs.add(Arguments.of("NVFP4 as MX", blocks(Encoding.NVFP4), fp4, false));
    return pairs.stream();
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("pairs")
  void takesWhatCanBeHeld(String name, Matrix source, Matrix target, boolean held) {
    filled(source);
    assertThat(Relay.fill(source, target)).isEqualTo(held);
    if (held) {
      assertThat(Relay.isSame(source, target)).isTrue();
      assertThat(Relay.isSame(target, source)).isTrue();
    }
  }

  @Test
  void refusesScalesThatWouldBeRounded() {
    Matrix source = filled(grouped(Encoding.I8, CodeOrder.LOW_FIRST, 32, Encoding.F32));
    Matrix target = blocks(Encoding.Q8_0);
    assertThat(Relay.fill(source, target)).isTrue();
    Numbers.put(Encoding.F32, source.scales().orElseThrow().data(), 5, 1 + 0x1p-20f);
    assertThat(Relay.fill(source, target)).isFalse();
    Numbers.put(Encoding.F32, source.scales().orElseThrow().data(), 5, 1e30f);
    assertThat(Relay.fill(source, target)).isFalse();
  }

  @Test
  void refusesOtherShapesAndRotations() {
    Matrix source = filled(grouped(Encoding.I4, CodeOrder.LOW_FIRST, K, Encoding.F32));
    Matrix target = grouped(Encoding.I4, CodeOrder.HIGH_FIRST, K, Encoding.F32);
    assertThat(Relay.fill(source, target)).isTrue();
    assertThat(Relay.isSame(source, target)).isTrue();
    assertThat(Relay.fill(source, target.toBuilder().rotation(64).build())).isFalse();
    assertThat(Relay.fill(source, target.toBuilder().shape(N - 1, K).build())).isFalse();
  }

  /** A zero of either sign is one number, and so is every NaN; anything else is not. */
  @Test
  void comparesNumbers() {
    float[] a = {0f, Float.NaN, 1f, 2f};
    float[] b = {-0f, Float.intBitsToFloat(0x7FC00001), 1f, 2f};
    Matrix one = Matrix.builder(1, 4, Encoding.F32, MemorySegment.ofArray(a)).build();
    Matrix other = Matrix.builder(1, 4, Encoding.F32, MemorySegment.ofArray(b)).build();
    assertThat(Relay.isSame(one, other)).isTrue();
    b[3] = Math.nextUp(2f);
    assertThat(Relay.isSame(one, other)).isFalse();
    assertThat(Relay.isSame(one.withResult(Encoding.BF16), other)).isTrue();
  }
}
