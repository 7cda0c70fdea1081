package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.sun.management.ThreadMXBean;
import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What holds for packed weights whatever the kernel: memory of every kind, closing, allocation. */
class NativePackedTest {
  private static final int N = 96;
  private static final int K = 160;

  /** Rows beyond which a call is no longer short. */
  private static final int LONG = (int) (NativePacked.SHORT_WORK / (N * K)) + 2;

  private final ReferenceBackend reference = new ReferenceBackend();
  private NativeBackend backend;

  @BeforeEach
  void library() {
    Native.require();
    backend = (NativeBackend) new NativeProvider().create(2);
  }

  private static Matrix matrix(Arena arena) {
    return new TestMatrices(arena, 7, true)
        .scaled(Encoding.NF4, N, K, CodeOrder.LOW_FIRST, Granularity.perGroup(K, 32), Encoding.F32);
  }

  private static float[] numbers(int count) {
    float[] x = new float[count];
    for (int i = 0; i < count; i++) {
      x[i] = (i * 37 % 101 - 50) / 50f;
    }
    return x;
  }

  private float[] expected(Matrix m, float[] x, int rows, float[] bias) {
    float[] y = new float[rows * N];
    try (PackedWeight packed = reference.pack(m)) {
      reference.linear(
          packed,
          LinearCall.of(
                  MemorySegment.ofArray(x),
                  Encoding.F32,
                  K,
                  rows,
                  MemorySegment.ofArray(y),
                  Encoding.F32,
                  N)
              .bias(MemorySegment.ofArray(bias))
              .threads(1));
    }
    return y;
  }

  @Test
  void heapAndNativeMemoryGiveTheSameForShortAndLongCalls() {
    try (Arena arena = Arena.ofConfined();
        PackedWeight packed = backend.pack(matrix(arena))) {
      float[] bias = numbers(N);
      for (int rows : new int[] {1, 3, LONG}) {
        float[] x = numbers(rows * K);
        float[] expected = expected(matrix(arena), x, rows, bias);
        MemorySegment heap = MemorySegment.ofArray(x);
        MemorySegment off = arena.allocateFrom(ValueLayout.JAVA_FLOAT, x);
        for (MemorySegment from : List.of(heap, off)) {
          for (boolean heapBias : new boolean[] {false, true}) {
            float[] y = new float[rows * N];
            MemorySegment b =
                heapBias
                    ? MemorySegment.ofArray(bias)
                    : arena.allocateFrom(ValueLayout.JAVA_FLOAT, bias);
            backend.linear(
                packed,
                LinearCall.of(
                        from, Encoding.F32, K, rows, MemorySegment.ofArray(y), Encoding.F32, N)
                    .bias(b)
                    .threads(2));
            assertClose(y, expected);
            MemorySegment native_ = arena.allocate(rows * N * 4L, 64);
            backend.linear(
                packed,
                LinearCall.of(from, Encoding.F32, K, rows, native_, Encoding.F32, N)
                    .bias(b)
                    .threads(2));
            assertClose(native_.toArray(ValueLayout.JAVA_FLOAT), expected);
          }
        }
      }
    }
  }

  /**
   * A call is for one thread; shared against that rule, it may fail, but writes only what it has.
   */
  @Test
  void aCallThatAnotherThreadChangesWritesNothingBeyondItsMemory() throws Exception {
    int rows = 4;
    int rounds = 50_000;
    try (Arena arena = Arena.ofShared();
        PackedWeight packed = backend.pack(matrix(arena))) {
      MemorySegment x = arena.allocateFrom(ValueLayout.JAVA_FLOAT, numbers(rows * K));
      MemorySegment wide = arena.allocate(rows * N * 4L, 64);
      MemorySegment whole = arena.allocate(rows * N * 4L, 64);
      MemorySegment tight = whole.asSlice(0, N * 4L);
      LinearCall<MemorySegment> call =
          LinearCall.of(x, Encoding.F32, K, 1, tight, Encoding.F32, N).threads(1);
      AtomicBoolean done = new AtomicBoolean();
      try (var pool = Executors.newSingleThreadExecutor()) {
        Future<?> changes =
            pool.submit(
                () -> {
                  while (!done.get()) {
                    call.operands(x, Encoding.F32, K, rows, wide, Encoding.F32, N);
                    call.operands(x, Encoding.F32, K, 1, tight, Encoding.F32, N);
                  }
                });
        for (int i = 0; i < rounds; i++) {
          try {
            backend.linear(packed, call);
          } catch (IndexOutOfBoundsException torn) {
            assertThat(torn).hasMessageContaining("y");
          }
        }
        done.set(true);
        changes.get();
      }
      assertThat(whole.asSlice(N * 4L).toArray(ValueLayout.JAVA_FLOAT)).containsOnly(0f);
    }
  }

  @Test
  void gapsBetweenHeapRowsAreKept() {
    try (Arena arena = Arena.ofConfined();
        PackedWeight packed = backend.pack(matrix(arena))) {
      for (int rows : new int[] {2, LONG}) {
        float[] y = new float[rows * (N + 1)];
        java.util.Arrays.fill(y, 7f);
        backend.linear(
            packed,
            LinearCall.of(
                    MemorySegment.ofArray(numbers(rows * K)),
                    Encoding.F32,
                    K,
                    rows,
                    MemorySegment.ofArray(y),
                    Encoding.F32,
                    N + 1)
                .threads(2));
        for (int i = 0; i < rows; i++) {
          assertThat(y[i * (N + 1) + N]).isEqualTo(7f);
        }
      }
    }
  }

  @Test
  void memoryAtOddAddressesIsTaken() {
    try (Arena arena = Arena.ofConfined()) {
      Matrix aligned = matrix(arena);
      Matrix odd =
          aligned.withMemory(
              memory -> arena.allocate(memory.byteSize() + 1, 64).asSlice(1).copyFrom(memory));
      float[] x = numbers(K);
      float[] expected = expected(aligned, x, 1, new float[N]);
      try (PackedWeight packed = backend.pack(odd)) {
        MemorySegment from = arena.allocate(4L * K + 1, 64).asSlice(1);
        from.copyFrom(MemorySegment.ofArray(x));
        MemorySegment y = arena.allocate(4L * N + 1, 64).asSlice(1);
        backend.linear(
            packed, LinearCall.of(from, Encoding.F32, K, 1, y, Encoding.F32, N).threads(2));
        assertClose(y.toArray(ValueLayout.JAVA_FLOAT_UNALIGNED), expected);
      }
    }
  }

  @Test
  void heapMatrixIsPackedAndUnpacked() {
    try (Arena arena = Arena.ofConfined()) {
      Matrix m = matrix(arena);
      Matrix heap =
          m.withMemory(memory -> MemorySegment.ofArray(memory.toArray(ValueLayout.JAVA_BYTE)));
      try (PackedWeight packed = backend.pack(heap)) {
        Matrix into =
            m.withMemory(memory -> MemorySegment.ofArray(new byte[(int) memory.byteSize()]));
        backend.unpack(packed, into);
        m.memory()
            .forEach(
                (part, memory) ->
                    assertThat(into.memory().get(part).mismatch(memory)).as(part).isEqualTo(-1));
      }
    }
  }

  @Test
  void closedWeightRefusesEveryUse() {
    try (Arena arena = Arena.ofConfined()) {
      PackedWeight packed = backend.pack(matrix(arena));
      packed.close();
      packed.close();
      MemorySegment x = arena.allocate(4L * K);
      MemorySegment y = arena.allocate(4L * N);
      assertThatThrownBy(
              () ->
                  backend.linear(
                      packed, LinearCall.of(x, Encoding.F32, K, 1, y, Encoding.F32, N).threads(1)))
          .isInstanceOf(IllegalStateException.class)
          .hasMessageContaining("closed");
      assertThatThrownBy(() -> backend.unpack(packed, matrix(arena)))
          .isInstanceOf(IllegalStateException.class);
      assertThatThrownBy(() -> packed.kernel(Compute.F32, 1))
          .isInstanceOf(IllegalStateException.class);
    }
  }

  @Test
  void closedMemoryAndAnotherThreadsMemoryAreRefused() throws Exception {
    Matrix closed;
    try (Arena arena = Arena.ofConfined()) {
      closed = matrix(arena);
    }
    assertThatThrownBy(() -> backend.pack(closed)).isInstanceOf(IllegalStateException.class);
    try (Arena arena = Arena.ofConfined();
        var pool = Executors.newSingleThreadExecutor()) {
      Matrix mine = matrix(arena);
      assertThat(pool.submit(() -> thrownBy(() -> backend.pack(mine).close())).get())
          .isInstanceOf(WrongThreadException.class);
    }
  }

  private static Throwable thrownBy(Runnable action) {
    try {
      action.run();
    } catch (RuntimeException e) {
      return e;
    }
    throw new AssertionError("nothing was thrown");
  }

  @Test
  void closingWhileCallsRunTakesNothingAway() throws Exception {
    for (int round = 0; round < 20; round++) {
      try (Arena arena = Arena.ofShared();
          var pool = Executors.newFixedThreadPool(3)) {
        PackedWeight packed = backend.pack(matrix(arena));
        float[] x = numbers(4 * K);
        float[] expected = expected(matrix(arena), x, 4, new float[N]);
        AtomicBoolean started = new AtomicBoolean();
        Callable<Boolean> calls =
            () -> {
              while (true) {
                float[] y = new float[4 * N];
                try {
                  backend.linear(
                      packed,
                      LinearCall.of(
                              MemorySegment.ofArray(x),
                              Encoding.F32,
                              K,
                              4,
                              MemorySegment.ofArray(y),
                              Encoding.F32,
                              N)
                          .threads(2));
                } catch (IllegalStateException e) {
                  return true;
                }
                assertClose(y, expected);
                started.set(true);
              }
            };
        List<Future<Boolean>> running = new ArrayList<>();
        for (int i = 0; i < 3; i++) {
          running.add(pool.submit(calls));
        }
        while (!started.get()) {
          Thread.onSpinWait();
        }
        packed.close();
        for (Future<Boolean> each : running) {
          assertThat(each.get()).isTrue();
        }
      }
    }
  }

  @Test
  void weightOfAnotherBackendIsRefused() {
    try (Arena arena = Arena.ofConfined();
        PackedWeight foreign = reference.pack(matrix(arena))) {
      assertThatThrownBy(() -> backend.unpack(foreign, matrix(arena)))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("another backend");
    }
  }

  @Test
  void packedFormIsAlignedAndTheSameEveryTime() {
    try (Arena arena = Arena.ofConfined();
        PackedWeight a = backend.pack(matrix(arena));
        PackedWeight b = backend.pack(matrix(arena))) {
      MemorySegment block = ((NativePacked) a).block();
      assertThat(block.address() % 64).isZero();
      assertThat(block.mismatch(((NativePacked) b).block())).isEqualTo(-1);
    }
  }

  @Test
  void callsAllocateNothing() {
    ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
    try (Arena arena = Arena.ofShared();
        PackedWeight packed = backend.pack(matrix(arena))) {
      for (int rows : new int[] {1, LONG}) {
        MemorySegment heap = MemorySegment.ofArray(numbers(rows * K));
        MemorySegment heapY = MemorySegment.ofArray(new float[rows * N]);
        MemorySegment x = arena.allocateFrom(ValueLayout.JAVA_FLOAT, numbers(rows * K));
        MemorySegment y = arena.allocate(4L * rows * N, 64);
        LinearCall<MemorySegment> call = new LinearCall<MemorySegment>().threads(1);
        Runnable calls =
            () -> {
              call.operands(x, Encoding.F32, K, rows, y, Encoding.F32, N);
              backend.linear(packed, call);
              call.operands(heap, Encoding.F32, K, rows, heapY, Encoding.F32, N);
              backend.linear(packed, call);
            };
        int warm = rows == 1 ? 20_000 : 2_000;
        for (int i = 0; i < warm; i++) {
          calls.run();
        }
        // The compiler may still be at it: the best of many rounds is what the code needs.
        long least = Long.MAX_VALUE;
        for (int round = 0; round < 1000 && least > 0; round++) {
          long before = threads.getCurrentThreadAllocatedBytes();
          for (int i = 0; i < 100; i++) {
            calls.run();
          }
          least = Math.min(least, threads.getCurrentThreadAllocatedBytes() - before);
        }
        assertThat(least).as("bytes in 200 calls of " + rows + " rows").isZero();
      }
    }
  }

  private static void assertClose(float[] found, float[] expected) {
    assertThat(found).hasSameSizeAs(expected);
    for (int i = 0; i < found.length; i++) {
      assertThat(found[i]).isCloseTo(expected[i], org.assertj.core.data.Offset.offset(2e-5f));
    }
  }
}
