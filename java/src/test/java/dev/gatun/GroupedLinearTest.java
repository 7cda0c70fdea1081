package dev.gatun;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.sun.management.ThreadMXBean;
import dev.gatun.Epilogue.Activation;
import dev.gatun.Epilogue.Combine;
import dev.gatun.checkpoint.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Experts as a user of {@link GroupedLinear} meets them. */
class GroupedLinearTest {
  private static final int N = 37;
  private static final int K = 64;

  private static Device device(String backend) {
    assumeTrue(
        Device.probe().stream().anyMatch(p -> p.backend().equals(backend) && p.available()),
        () -> "no backend " + backend);
    return Device.of(backend, 2);
  }

  private static float[] numbers(int count, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) random.nextDouble(-1, 1);
    }
    return values;
  }

  private static Tensor tensor(float[] values, Long... shape) {
    return new Tensor("t", DType.F32, List.of(shape), MemorySegment.ofArray(values));
  }

  private static float[] weight(int expert) {
    return numbers(N * K, 100 + expert);
  }

  /** Every second expert has a bias. */
  private static List<Linear> experts(int count, Compute compute, Device device) {
    List<Linear> experts = new ArrayList<>();
    for (int e = 0; e < count; e++) {
      Tensor bias = e % 2 == 0 ? null : tensor(numbers(N, e), (long) N);
      experts.add(Linear.of(tensor(weight(e), (long) N, (long) K), bias, compute, device));
    }
    return experts;
  }

  private static int expertOf(long row, long[] offsets) {
    int expert = 0;
    while (offsets[expert + 1] <= row) {
      expert++;
    }
    return expert;
  }

  @ParameterizedTest
  @CsvSource({
    "reference,0 3 3 8",
    "vector,0 3 3 8",
    "native,0 3 3 8",
    "cuda,0 3 3 8",
    "native,0 5",
    "native,0 0 0 1",
    "native,0 40 41 41 58 60",
    "native,0 0 0",
    "vector,0 0 2 2",
    "reference,0 1"
  })
  void everyRowMeetsItsExpert(String backend, String rows) {
    long[] offsets = List.of(rows.split(" ")).stream().mapToLong(Long::parseLong).toArray();
    int m = (int) offsets[offsets.length - 1];
    float[] x = numbers(m * K, 7);
    float[] y = new float[m * N];
    float[] other = numbers(m * N, 8);
    try (Device device = device(backend);
        GroupedLinear layer = GroupedLinear.of(experts(offsets.length - 1, Compute.F32, device))) {
      layer.forward(
          MemorySegment.ofArray(x),
          Encoding.F32,
          K,
          offsets,
          MemorySegment.ofArray(y),
          Encoding.F32,
          N,
          new Epilogue(Activation.SILU, Combine.MULTIPLY),
          MemorySegment.ofArray(other),
          N);
    }
    for (int i = 0; i < m * N; i++) {
      int e = expertOf(i / N, offsets);
      float[] w = weight(e);
      double sum = e % 2 == 0 ? 0 : numbers(N, e)[i % N];
      for (int k = 0; k < K; k++) {
        sum += (double) w[i % N * K + k] * x[i / N * K + k];
      }
      double expected = sum / (1 + Math.exp(-sum)) * other[i];
      assertThat((double) y[i]).as("output %d", i).isCloseTo(expected, within(2e-5));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"F32", "BF16"})
  void givesTheBitsOfItsExpertsAlone(Compute compute) {
    long[] offsets = {0, 2, 2, 21, 22};
    int m = 22;
    float[] x = numbers(m * K, 7);
    float[] together = new float[m * N];
    float[] alone = new float[m * N];
    try (Device device = device("native");
        GroupedLinear layer = GroupedLinear.of(experts(4, compute, device))) {
      layer.forward(MemorySegment.ofArray(x), offsets, MemorySegment.ofArray(together));
      List<Linear> singles = experts(4, compute, device);
      for (int e = 0; e < 4; e++) {
        long rows = offsets[e + 1] - offsets[e];
        if (rows > 0) {
          singles
              .get(e)
              .forward(
                  MemorySegment.ofArray(x).asSlice(offsets[e] * K * Float.BYTES),
                  rows,
                  MemorySegment.ofArray(alone).asSlice(offsets[e] * N * Float.BYTES));
        }
        singles.get(e).close();
      }
    }
    assertThat(together).isEqualTo(alone);
  }

  @ParameterizedTest
  @ValueSource(strings = {"reference", "vector", "native", "cuda"})
  void refusesWhatDoesNotHoldTogether(String backend) {
    try (Device device = device(backend);
        GroupedLinear layer = GroupedLinear.of(experts(2, Compute.F32, device));
        Linear narrow =
            Linear.of(tensor(numbers(N * 3, 1), (long) N, 3L), null, Compute.F32, device);
        Linear wide = Linear.of(tensor(weight(0), (long) N, (long) K), null, Compute.F32, device)) {
      MemorySegment x = MemorySegment.ofArray(new float[4 * K]);
      MemorySegment y = MemorySegment.ofArray(new float[4 * N]);
      for (long[] offsets :
          new long[][] {{}, {0, 4}, {0, 1, 2, 3}, {1, 2, 3}, {0, 3, 2}, {0, -1, 0}}) {
        assertThatThrownBy(() -> layer.forward(x, offsets, y))
            .isInstanceOf(GatunException.class)
            .hasMessageContaining("offset");
      }
      assertThatThrownBy(() -> layer.forward(x, new long[] {0, 2, 5}, y))
          .isInstanceOf(IndexOutOfBoundsException.class);
      assertThatThrownBy(() -> layer.forward(x, new long[] {0, 2, Long.MAX_VALUE}, y))
          .isInstanceOfAny(IndexOutOfBoundsException.class, GatunException.class);
      assertThatThrownBy(() -> layer.forward(x, new long[] {0, 1, 2}, x))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("overlap");
      assertThatThrownBy(() -> GroupedLinear.of(List.of(wide, narrow)))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("expert 1 of 37 x 3");
      assertThatThrownBy(() -> GroupedLinear.of(List.of())).isInstanceOf(GatunException.class);
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"reference", "vector", "native", "cuda"})
  void isRefusedOnceClosed(String backend) {
    try (Device device = device(backend)) {
      GroupedLinear kept;
      try (GroupedLinear layer = GroupedLinear.of(experts(2, Compute.F32, device))) {
        kept = layer;
      }
      MemorySegment x = MemorySegment.ofArray(new float[2 * K]);
      MemorySegment y = MemorySegment.ofArray(new float[2 * N]);
      assertThatThrownBy(() -> kept.forward(x, new long[] {0, 1, 2}, y))
          .isInstanceOf(IllegalStateException.class);
    }
  }

  @Test
  void allocatesNothingOnceWarm() {
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    long[] offsets = {0, 1, 1, 4};
    try (Device device = device("native");
        GroupedLinear layer = GroupedLinear.of(experts(3, Compute.F32, device));
        Arena arena = Arena.ofShared()) {
      MemorySegment x = arena.allocate(4L * 4 * K, 64);
      MemorySegment y = arena.allocate(4L * 4 * N, 64);
      long least = Long.MAX_VALUE;
      for (int round = 0; round < 20; round++) {
        long before = threads.getCurrentThreadAllocatedBytes();
        for (int i = 0; i < 1000; i++) {
          layer.forward(x, offsets, y);
        }
        least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
      }
      assertThat(least).isLessThan(1000);
    }
  }
}
