package dev.gatun.kernel.codec;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Encoding;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Random;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** The largest magnitude and subnormals against a plain loop. */
class MagnitudesTest {
  @ParameterizedTest
  @EnumSource(names = {"F32", "F16", "BF16"})
  void theLargestIsThatOfAPlainLoopForEveryLengthAndStart(Encoding type) {
    Random random = new Random(1);
    try (Arena arena = Arena.ofConfined()) {
      for (int count = 0; count < 70; count++) {
        MemorySegment data = arena.allocate(Math.max(1, 72L * type.bits() / 8));
        for (int i = 0; i < 72; i++) {
          Numbers.put(type, data, i, (float) (random.nextGaussian() * Math.exp(i % 5)));
        }
        int first = count % 3;
        float expected = 0;
        for (int i = first; i < first + count && i < 72; i++) {
          expected = Math.max(expected, Math.abs(Numbers.get(type, data, i)));
        }
        int used = Math.min(count, 72 - first);
        assertThat(Magnitudes.largest(type, data, first, used)).isEqualTo(expected);
      }
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"F32", "F16", "BF16"})
  void aNumberThatIsNoneIsTheLargestWhereverItLies(Encoding type) {
    try (Arena arena = Arena.ofConfined()) {
      for (int at = 0; at < 33; at++) {
        MemorySegment data = arena.allocate(33L * type.bits() / 8);
        Numbers.put(type, data, (at + 1) % 33, Float.NEGATIVE_INFINITY);
        assertThat(Magnitudes.largest(type, data, 0, 33)).isEqualTo(Float.POSITIVE_INFINITY);
        Numbers.put(type, data, at, Float.NaN);
        assertThat(Magnitudes.largest(type, data, 0, 33)).isNaN();
      }
    }
  }

  @ParameterizedTest
  @EnumSource(names = {"F32", "BF16"})
  void aSubnormalNumberIsFoundWhereverItLiesAndZerosAreNone(Encoding type) {
    float step = type == Encoding.F32 ? Float.MIN_VALUE : 0x1p-133f;
    try (Arena arena = Arena.ofConfined()) {
      for (int count = 1; count < 35; count++) {
        MemorySegment data = arena.allocate((long) count * type.bits() / 8);
        assertThat(Magnitudes.hasSubnormal(type, data, count)).isFalse();
        for (int i = 0; i < count; i++) {
          Numbers.put(type, data, i, i % 2 == 0 ? Float.MIN_NORMAL : -1f);
        }
        assertThat(Magnitudes.hasSubnormal(type, data, count)).isFalse();
        for (float subnormal : new float[] {step, -step, Float.MIN_NORMAL - step}) {
          for (int at = 0; at < count; at++) {
            float before = Numbers.get(type, data, at);
            Numbers.put(type, data, at, subnormal);
            assertThat(Magnitudes.hasSubnormal(type, data, count)).isTrue();
            Numbers.put(type, data, at, before);
          }
        }
      }
    }
  }
}
