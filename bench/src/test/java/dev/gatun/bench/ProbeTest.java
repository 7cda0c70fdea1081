package dev.gatun.bench;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

class ProbeTest {
  /** Only a build without a C compiler has no probe; in any other its absence is a failure. */
  @BeforeEach
  void theLibraryIsBuilt() {
    assumeTrue(
        "on".equals(System.getProperty("gatun.test.probe")), "built with -Dgatun.native=off");
  }

  @Test
  void twoThreadsAreCountedAndEveryKindIsKnown() {
    try (Probe probe = Probe.open()) {
      for (Probe.Peak kind : Probe.Peak.values()) {
        double peak = probe.peak(kind, 2, 2);
        assertThat(peak > 0).as("%s: %s", kind, peak).isEqualTo(!probe.peakName(kind).isEmpty());
      }
      assertThat(probe.peakName(Probe.Peak.F32)).isNotEmpty();
      assertThat(probe.peak(Probe.Peak.F32, 0, 1)).isZero();
      assertThat(probe.peak(Probe.Peak.F32, 1, 0)).isZero();
    }
  }

  @Test
  void copiesEveryByteHoweverManyThreadsShareThem() {
    for (int threads = 1; threads <= 3; threads++) {
      for (boolean streaming : new boolean[] {false, true}) {
        try (Probe probe = Probe.open();
            Arena arena = Arena.ofConfined()) {
          MemorySegment from = arena.allocate(512 * 37, 64);
          MemorySegment to = arena.allocate(512 * 37, 64);
          for (long i = 0; i < from.byteSize(); i++) {
            from.set(ValueLayout.JAVA_BYTE, i, (byte) (i * 31 + 1));
          }
          assertThat(probe.copy(to, from, streaming, threads, 2)).isPositive();
          assertThat(to.mismatch(from)).isEqualTo(-1);
          assertThat(probe.read(from, threads, 2)).isPositive();
        }
      }
    }
  }

  @Test
  void givesMemoryThatHasBeenWrittenTo() {
    try (Probe probe = Probe.open();
        Arena arena = Arena.ofConfined()) {
      MemorySegment memory = probe.allocate(5_000_001, arena);
      assertThat(memory.address() % 64).isZero();
      assertThat(memory.get(ValueLayout.JAVA_BYTE, 5_000_000)).isNotZero();
    }
  }
}
