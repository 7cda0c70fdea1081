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
import java.util.List;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Epilogues as a user of {@link Linear} meets them. */
class LinearEpilogueTest {
  private static final int N = 37;
  private static final int K = 50;
  private static final int M = 3;

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

  private static Linear linear(float[] w, Device device) {
    List<Long> shape = List.of((long) N, (long) K);
    Tensor weight = new Tensor("w", DType.F32, shape, MemorySegment.ofArray(w));
    return Linear.of(weight, null, Compute.F32, device);
  }

  private static double dot(float[] w, int n, float[] x, int m) {
    double sum = 0;
    for (int k = 0; k < K; k++) {
      sum += (double) w[n * K + k] * x[m * K + k];
    }
    return sum;
  }

  @ParameterizedTest
  @ValueSource(strings = {"reference", "vector", "native", "cuda"})
  void swigluIsTwoCalls(String backend) {
    float[] gateWeight = numbers(N * K, 1);
    float[] upWeight = numbers(N * K, 2);
    float[] x = numbers(M * K, 3);
    float[] y = new float[M * N];
    try (Device device = device(backend);
        Linear gate = linear(gateWeight, device);
        Linear up = linear(upWeight, device)) {
      MemorySegment input = MemorySegment.ofArray(x);
      MemorySegment buffer = MemorySegment.ofArray(y);
      gate.forward(input, M, buffer, Epilogue.of(Activation.SILU), null);
      up.forward(input, M, buffer, Epilogue.of(Combine.MULTIPLY), buffer);
    }
    for (int i = 0; i < M * N; i++) {
      double g = dot(gateWeight, i % N, x, i / N);
      double expected = g / (1 + Math.exp(-g)) * dot(upWeight, i % N, x, i / N);
      assertThat((double) y[i]).as("output %d", i).isCloseTo(expected, within(2e-5));
    }
  }

  @ParameterizedTest
  @ValueSource(strings = {"reference", "vector", "native", "cuda"})
  void refusesMemoryThatItCannotUse(String backend) {
    Epilogue add = Epilogue.of(Combine.ADD);
    try (Device device = device(backend);
        Linear linear = linear(numbers(N * K, 1), device);
        Arena arena = Arena.ofConfined()) {
      MemorySegment x = arena.allocate(4 * M * K, 64);
      MemorySegment memory = arena.allocate(8 * M * N, 64);
      MemorySegment y = memory.asSlice(0, 4 * M * N);
      MemorySegment shifted = memory.asSlice(4, 4 * M * N);
      assertThatThrownBy(() -> linear.forward(x, M, y, add, shifted))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("other and y that overlap in part");
      assertThatThrownBy(
              () -> linear.forward(x, Encoding.F32, K, M, y, Encoding.F32, N, add, memory, N + 1))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("other and y that overlap in part");
      assertThatThrownBy(() -> linear.forward(x, M, y, add, null))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found no 'other'");
      MemorySegment closed;
      try (Arena other = Arena.ofConfined()) {
        closed = other.allocate(4 * M * N, 64);
      }
      assertThatThrownBy(() -> linear.forward(x, M, y, add, closed))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("other is closed");
      linear.forward(x, M, y, add, memory.asSlice(4 * M * N));
      linear.forward(x, M, y, add, y);
    }
  }

  @Test
  void allocatesNothingOnceWarm() {
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    Epilogue epilogue = new Epilogue(Activation.GELU, Combine.ADD);
    for (String backend : List.of("vector", "native")) {
      try (Device device = device(backend);
          Linear linear = linear(numbers(N * K, 1), device);
          Arena arena = Arena.ofShared()) {
        MemorySegment x = arena.allocate(4 * M * K, 64);
        MemorySegment y = arena.allocate(4 * M * N, 64);
        long least = Long.MAX_VALUE;
        // Code that is not compiled yet may allocate; the best of some rounds is warm.
        for (int round = 0; round < 3000 && least > 0; round++) {
          long before = threads.getCurrentThreadAllocatedBytes();
          for (int i = 0; i < 20; i++) {
            linear.forward(x, M, y, epilogue, y);
          }
          least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
        }
        assertThat(least).as(backend).isZero();
      }
    }
  }
}
