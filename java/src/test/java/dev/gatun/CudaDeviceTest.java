package dev.gatun;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.sun.management.ThreadMXBean;
import dev.gatun.Epilogue.Activation;
import dev.gatun.Epilogue.Combine;
import dev.gatun.checkpoint.DType;
import dev.gatun.kernel.CudaGraph;
import dev.gatun.kernel.CudaMemory;
import dev.gatun.kernel.CudaStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIf;

/** Layers on a GPU's own memory: streams, graphs, closing and running out of memory. */
@EnabledIf(value = "dev.gatun.kernel.Cuda#hasGpu", disabledReason = "no GPU")
class CudaDeviceTest {
  private static final int N = 203;
  private static final int K = 192;
  private static final int M = 5;

  private final CudaDevice gpu = Device.cuda(0);

  @AfterEach
  void close() {
    gpu.close();
    gpu.close();
  }

  private static float[] numbers(int count, long seed) {
    SplittableRandom random = new SplittableRandom(seed);
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) random.nextDouble(-1, 1);
    }
    return values;
  }

  private static Linear linear(float[] w, int n, int k, Device device) {
    List<Long> shape = List.of((long) n, (long) k);
    Tensor weight = new Tensor("w", DType.F32, shape, MemorySegment.ofArray(w));
    List<Long> size = List.of((long) n);
    Tensor bias = new Tensor("b", DType.F32, size, MemorySegment.ofArray(numbers(n, 77)));
    return Linear.of(weight, bias, Compute.F32, device);
  }

  private static void assertProduct(float[] y, float[] w, float[] x, int m, int n, int k) {
    float[] bias = numbers(n, 77);
    for (int i = 0; i < m * n; i++) {
      double sum = bias[i % n];
      for (int j = 0; j < k; j++) {
        sum += (double) w[i % n * k + j] * x[i / n * k + j];
      }
      assertThat((double) y[i]).as("output %d", i).isCloseTo(sum, within(1e-4));
    }
  }

  private static float[] download(CudaStream stream, CudaMemory y, int count) {
    float[] values = new float[count];
    stream.download(y, MemorySegment.ofArray(values));
    return values;
  }

  private static void poison(CudaStream stream, CudaMemory memory) {
    stream.fill(memory, (byte) 0x7F); // floats of 3.39e38
  }

  @Test
  void bestIsTheGpu() {
    try (Device best = Device.best();
        Device required = Device.require("cuda")) {
      assertThat(best).isInstanceOf(CudaDevice.class);
      assertThat(required).isInstanceOf(CudaDevice.class);
    }
    assertThatThrownBy(() -> Device.cuda(CudaDevice.count()))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("found device " + CudaDevice.count());
    assertThatThrownBy(() -> Device.cuda(-1)).isInstanceOf(GatunException.class);
  }

  @Test
  void forwardOnAStreamMultiplies() {
    float[] w = numbers(N * K, 1);
    float[] x = numbers(M * K, 2);
    try (Linear layer = linear(w, N, K, gpu);
        CudaStream stream = gpu.stream();
        CudaMemory onX = gpu.upload(MemorySegment.ofArray(x));
        CudaMemory onY = gpu.allocate(4L * M * N)) {
      poison(stream, onY);
      layer.forward(stream, onX, M, onY);
      assertProduct(download(stream, onY, M * N), w, x, M, N, K);
      assertThat(layer.kernel(M)).startsWith("linear_f32_f32__sm");
    }
  }

  @Test
  void rowsMayLieApartAndEpiloguesWorkInPlace() {
    float[] w = numbers(N * K, 1);
    float[] x = numbers(M * (K + 3), 2);
    float[] before = numbers(M * (N + 5), 3);
    Epilogue epilogue = new Epilogue(Activation.SILU, Combine.ADD);
    float[] expected = before.clone();
    try (Device reference = Device.of("reference");
        Linear definition = linear(w, N, K, reference)) {
      MemorySegment y = MemorySegment.ofArray(expected);
      definition.forward(
          MemorySegment.ofArray(x),
          Encoding.F32,
          K + 3,
          M,
          y,
          Encoding.F32,
          N + 5,
          epilogue,
          y,
          N + 5);
    }
    try (Linear layer = linear(w, N, K, gpu);
        CudaStream stream = gpu.stream();
        CudaMemory onX = gpu.upload(MemorySegment.ofArray(x));
        CudaMemory onY = gpu.upload(MemorySegment.ofArray(before))) {
      layer.forward(
          stream, onX, Encoding.F32, K + 3, M, onY, Encoding.F32, N + 5, epilogue, onY, N + 5);
      float[] found = download(stream, onY, expected.length);
      for (int i = 0; i < found.length; i++) {
        boolean gap = i % (N + 5) >= N;
        assertThat((double) found[i])
            .as("number %d", i)
            .isCloseTo(expected[i], within(gap ? 0 : 1e-4));
      }
    }
  }

  @Test
  void whatDoesNotFitIsRefused() {
    try (Linear layer = linear(numbers(N * K, 1), N, K, gpu);
        CudaStream stream = gpu.stream();
        CudaMemory x = gpu.allocate(4L * M * K);
        CudaMemory y = gpu.allocate(4L * M * N)) {
      assertThatThrownBy(() -> layer.forward(stream, x, M + 1, y))
          .isInstanceOf(IndexOutOfBoundsException.class)
          .hasMessageContaining("found x of " + 4 * M * K + " bytes");
      assertThatThrownBy(() -> layer.forward(stream, x, M, y.slice(4, 4L * M * N - 4)))
          .isInstanceOf(IndexOutOfBoundsException.class)
          .hasMessageContaining("found y of");
      assertThatThrownBy(() -> layer.forward(stream, y, 1, y))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("overlap");
      assertThatThrownBy(() -> y.slice(1, 4L * M * N))
          .isInstanceOf(IndexOutOfBoundsException.class);
      assertThatThrownBy(() -> stream.upload(MemorySegment.ofArray(new byte[4 * M * K + 1]), x))
          .isInstanceOf(IndexOutOfBoundsException.class);
      CudaMemory closed = gpu.allocate(4L * M * K);
      closed.close();
      closed.close();
      assertThatThrownBy(() -> layer.forward(stream, closed, M, y))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
      CudaStream ended = gpu.stream();
      ended.close();
      ended.close();
      assertThatThrownBy(() -> layer.forward(ended, x, M, y))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
      try (Device host = Device.of("reference");
          Linear other = linear(numbers(N * K, 1), N, K, host)) {
        assertThatThrownBy(() -> other.forward(stream, x, M, y))
            .isInstanceOf(GatunException.class)
            .hasMessageContaining("does not run on a GPU");
      }
      Linear gone = linear(numbers(N * K, 1), N, K, gpu);
      gone.close();
      gone.close();
      assertThatThrownBy(() -> gone.forward(stream, x, M, y))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
    }
  }

  @Test
  void uploadsLargerThanThePinnedMemoryComeBackWhole() {
    byte[] bytes = new byte[(9 << 20) + 13];
    new SplittableRandom(5).nextBytes(bytes);
    byte[] back = new byte[bytes.length];
    try (CudaStream stream = gpu.stream();
        CudaMemory first = gpu.upload(MemorySegment.ofArray(bytes));
        CudaMemory second = gpu.allocate(bytes.length)) {
      stream.copy(first, second);
      stream.download(second, MemorySegment.ofArray(back));
    }
    assertThat(back).isEqualTo(bytes);
  }

  @Test
  void aGraphOfSeveralLayersIsReplayed() {
    float[] up = numbers(N * K, 1);
    float[] down = numbers(K * N, 2);
    try (CudaStream stream = gpu.stream();
        CudaStream other = gpu.stream();
        CudaMemory x = gpu.allocate(4L * M * K);
        CudaMemory y = gpu.allocate(4L * M * N);
        CudaMemory z = gpu.allocate(4L * M * K)) {
      Linear first = linear(up, N, K, gpu);
      Linear second = linear(down, K, N, gpu);
      CudaGraph graph =
          stream.capture(
              () -> {
                first.forward(stream, x, M, y);
                second.forward(stream, y, M, z);
              });
      // The graph keeps them.
      first.close();
      second.close();
      for (int round = 0; round < 3; round++) {
        float[] in = numbers(M * K, 10 + round);
        CudaStream on = round == 1 ? other : stream;
        on.upload(MemorySegment.ofArray(in), x);
        poison(on, y);
        poison(on, z);
        graph.launch(on);
        float[] between = download(on, y, M * N);
        assertProduct(between, up, in, M, N, K);
        float[] out = download(on, z, M * K);
        float[] bias = numbers(K, 77);
        for (int i = 0; i < M * K; i++) {
          double sum = bias[i % K];
          for (int j = 0; j < N; j++) {
            sum += (double) down[i % K * N + j] * between[i / K * N + j];
          }
          assertThat((double) out[i]).isCloseTo(sum, within(1e-3));
        }
      }
      graph.launch(stream);
      graph.close(); // while it may still run
      graph.close();
      assertThatThrownBy(() -> graph.launch(stream))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
    }
  }

  @Test
  void aCaptureThatFailsLeavesTheStreamAsItWas() {
    float[] w = numbers(N * K, 1);
    float[] x = numbers(M * K, 2);
    try (Linear layer = linear(w, N, K, gpu);
        CudaStream stream = gpu.stream();
        CudaMemory onX = gpu.upload(MemorySegment.ofArray(x));
        CudaMemory onY = gpu.allocate(4L * M * N)) {
      assertThatThrownBy(() -> stream.capture(() -> stream.upload(MemorySegment.ofArray(x), onX)))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("within a capture");
      int[] runs = {0};
      assertThatThrownBy(
              () ->
                  stream.capture(
                      () -> {
                        layer.forward(stream, onX, M, onY);
                        if (runs[0]++ == 1) {
                          throw new UnsupportedOperationException("at the second run");
                        }
                      }))
          .isInstanceOf(UnsupportedOperationException.class);
      layer.forward(stream, onX, M, onY);
      assertProduct(download(stream, onY, M * N), w, x, M, N, K);
    }
  }

  @Test
  void streamsOfSeveralThreadsRunBesideEachOther() throws Exception {
    float[] w = numbers(N * K, 1);
    try (Linear layer = linear(w, N, K, gpu);
        CudaStream shared = gpu.stream();
        var threads = Executors.newFixedThreadPool(4)) {
      List<Future<?>> all = new ArrayList<>();
      for (int t = 0; t < 8; t++) {
        int seed = t;
        all.add(
            threads.submit(
                () -> {
                  float[] x = numbers(M * K, 20 + seed);
                  try (CudaStream own = gpu.stream();
                      CudaMemory onX = gpu.upload(MemorySegment.ofArray(x));
                      CudaMemory onY = gpu.allocate(4L * M * N)) {
                    for (int i = 0; i < 50; i++) {
                      CudaStream stream = i % 2 == 0 ? own : shared;
                      poison(stream, onY);
                      layer.forward(stream, onX, M, onY);
                      float[] y = download(stream, onY, M * N);
                      if (i % 10 == 0) {
                        assertProduct(y, w, x, M, N, K);
                      }
                    }
                  }
                }));
      }
      for (Future<?> each : all) {
        each.get();
      }
    }
  }

  @Test
  void oneStreamCanWaitForAnother() {
    int size = 64 << 20;
    try (CudaStream first = gpu.stream();
        CudaStream second = gpu.stream();
        CudaMemory memory = gpu.allocate(size);
        CudaMemory copy = gpu.allocate(size)) {
      byte[] back = new byte[size];
      for (int round = 1; round <= 5; round++) {
        for (int i = 0; i < 20; i++) {
          first.fill(memory, (byte) (i == 19 ? round : -1));
        }
        second.await(first);
        second.copy(memory, copy);
        first.await(second);
        second.download(copy, MemorySegment.ofArray(back));
        byte expected = (byte) round;
        for (int i = 0; i < size; i += 4099) {
          assertThat(back[i]).isEqualTo(expected);
        }
      }
    }
  }

  @Test
  void closingWhileWorkIsInFlightTakesNothingAway() {
    int n = 4096;
    int k = 4096;
    float[] w = numbers(n * k, 1);
    float[] x = numbers(k, 2);
    float[] bias = numbers(n, 77);
    try (CudaMemory y = gpu.allocate(4L * n);
        CudaStream reader = gpu.stream()) {
      for (int round = 0; round < 20; round++) {
        CudaStream stream = gpu.stream();
        Linear layer = linear(w, n, k, gpu);
        CudaMemory onX = gpu.upload(MemorySegment.ofArray(x));
        for (int i = 0; i < 50; i++) {
          layer.forward(stream, onX, 1, y);
        }
        reader.await(stream);
        layer.close();
        onX.close();
        stream.close();
        // What is allocated now must not be what the layers still read.
        try (CudaMemory more = gpu.allocate(4L * n * k)) {
          reader.fill(more, (byte) 0x7F);
          float[] found = download(reader, y, n);
          for (int i = 0; i < n; i += 97) {
            double sum = bias[i];
            for (int j = 0; j < k; j++) {
              sum += (double) w[i * k + j] * x[j];
            }
            assertThat((double) found[i]).isCloseTo(sum, within(1e-3));
          }
        }
      }
    }
  }

  @Test
  void closingWhileThreadsEnqueueStopsThemCleanly() throws Exception {
    for (int round = 0; round < 20; round++) {
      Linear layer = linear(numbers(N * K, 1), N, K, gpu);
      AtomicBoolean started = new AtomicBoolean();
      try (var threads = Executors.newFixedThreadPool(3)) {
        Callable<Boolean> calls =
            () -> {
              try (CudaStream stream = gpu.stream();
                  CudaMemory x = gpu.allocate(4L * M * K);
                  CudaMemory y = gpu.allocate(4L * M * N)) {
                while (true) {
                  layer.forward(stream, x, M, y);
                  started.set(true);
                }
              } catch (IllegalStateException e) {
                return true;
              }
            };
        List<Future<Boolean>> all = List.of(threads.submit(calls), threads.submit(calls));
        while (!started.get()) {
          Thread.onSpinWait();
        }
        layer.close();
        for (Future<Boolean> each : all) {
          assertThat(each.get()).isTrue();
        }
      }
    }
  }

  @Test
  void whatOutlivesItsDeviceCanStillBeClosed() {
    CudaDevice other = Device.cuda(0);
    CudaStream stream = other.stream();
    CudaMemory memory = other.allocate(1000);
    Linear layer = linear(numbers(N * K, 1), N, K, other);
    other.close();
    assertThatThrownBy(() -> other.allocate(1)).isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(other::stream).isInstanceOf(IllegalStateException.class);
    layer.close();
    memory.close();
    stream.close();
  }

  @Test
  void tenThousandLayersLeaveNothingBehind() {
    float[] w = numbers(N * K, 1);
    float[] x = numbers(K, 2);
    float[] y = new float[N];
    try (CudaStream stream = gpu.stream();
        CudaMemory onX = gpu.upload(MemorySegment.ofArray(x));
        CudaMemory onY = gpu.allocate(4L * N)) {
      long before = 0;
      for (int i = 0; i < 10_000; i++) {
        if (i == 100) { // what is made once has been made
          gpu.synchronize();
          before = gpu.gpu().freeBytes();
        }
        try (Linear layer = linear(w, N, K, gpu)) {
          layer.forward(stream, onX, 1, onY);
          if (i % 100 == 0) {
            layer.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(y));
          }
        }
      }
      gpu.synchronize();
      assertThat(before - gpu.gpu().freeBytes()).isLessThan(64L << 20);
      assertProduct(download(stream, onY, N), w, x, 1, N, K);
    }
  }

  @Test
  void outOfMemorySaysWhatWasAskedAndWhatIsFree() {
    long asked = gpu.gpu().memoryBytes() + (1L << 30);
    assertThatThrownBy(() -> gpu.allocate(asked))
        .isInstanceOfSatisfying(
            CudaOutOfMemoryException.class,
            e -> {
              assertThat(e.askedBytes()).isEqualTo(asked);
              assertThat(e.freeBytes()).isPositive().isLessThan(asked);
              assertThat(e).hasMessageContaining("asked for " + asked + " bytes, free are ");
            });
    gpu.allocate(1 << 20).close();
  }

  @Test
  void anEnqueueAllocatesNothing() {
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    Epilogue epilogue = new Epilogue(Activation.GELU, Combine.ADD);
    try (Linear layer = linear(numbers(N * K, 1), N, K, gpu);
        CudaStream stream = gpu.stream();
        CudaMemory x = gpu.allocate(4L * M * K);
        CudaMemory y = gpu.allocate(4L * M * N)) {
      long least = Long.MAX_VALUE;
      // Code that is not compiled yet may allocate; the best of some rounds is warm.
      for (int round = 0; round < 3000 && least > 0; round++) {
        long before = threads.getCurrentThreadAllocatedBytes();
        for (int i = 0; i < 20; i++) {
          layer.forward(stream, x, Encoding.F32, K, M, y, Encoding.F32, N, epilogue, y, N);
        }
        least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
        stream.synchronize();
      }
      assertThat(least).isZero();
    }
  }

  @Test
  void theTimeOfWorkIsTheDevices() {
    try (CudaStream stream = gpu.stream();
        CudaMemory memory = gpu.allocate(64 << 20)) {
      double one = stream.milliseconds(() -> stream.fill(memory, (byte) 1));
      assertThat(one).isPositive();
    }
  }

  @Test
  void memoryOfTheHostIsTakenFromOneThread() {
    float[] w = numbers(N * K, 1);
    float[] x = numbers(M * K, 2);
    try (Linear layer = linear(w, N, K, gpu);
        Arena confined = Arena.ofConfined()) {
      MemorySegment y = confined.allocate(4L * M * N);
      layer.forward(confined.allocateFrom(ValueLayout.JAVA_FLOAT, x), M, y);
      assertProduct(y.toArray(ValueLayout.JAVA_FLOAT), w, x, M, N, K);
    }
  }

  @Test
  @EnabledIf(value = "dev.gatun.kernel.Cuda#hasTwoGpus", disabledReason = "no second GPU")
  void twoDevicesWorkBesideEachOther() {
    float[] w = numbers(N * K, 1);
    float[] x = numbers(M * K, 2);
    try (CudaDevice second = Device.cuda(1);
        Linear here = linear(w, N, K, gpu);
        Linear there = linear(w, N, K, second);
        CudaStream stream = gpu.stream();
        CudaStream other = second.stream();
        CudaMemory onX = gpu.upload(MemorySegment.ofArray(x));
        CudaMemory onY = gpu.allocate(4L * M * N);
        CudaMemory otherX = second.upload(MemorySegment.ofArray(x));
        CudaMemory otherY = second.allocate(4L * M * N)) {
      assertThat(second.gpu().index()).isEqualTo(1);
      here.forward(stream, onX, M, onY);
      there.forward(other, otherX, M, otherY);
      assertProduct(download(stream, onY, M * N), w, x, M, N, K);
      assertProduct(download(other, otherY, M * N), w, x, M, N, K);
      assertThatThrownBy(() -> here.forward(stream, otherX, M, onY))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("device 1");
      assertThatThrownBy(() -> there.forward(stream, onX, M, onY))
          .isInstanceOf(GatunException.class);
      assertThatThrownBy(() -> stream.await(other)).isInstanceOf(GatunException.class);
      float[] y = new float[M * N];
      there.forward(MemorySegment.ofArray(x), M, MemorySegment.ofArray(y));
      assertProduct(y, w, x, M, N, K);
    }
  }
}
