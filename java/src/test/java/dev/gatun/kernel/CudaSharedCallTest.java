package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIf;

/**
 * A call is for one thread. Shared against that rule, a product may fail, but it writes only what
 * the memory of the call has: the device has no bounds of its own.
 */
@EnabledIf(value = "dev.gatun.kernel.Cuda#hasGpu", disabledReason = "no GPU")
class CudaSharedCallTest {
  private static final int N = 128;
  private static final int K = 64;
  private static final int ROWS = 512;
  private static final int ROUNDS = 20_000;

  private final CudaBackend backend = new CudaBackend(0);

  @AfterEach
  void close() {
    backend.close();
  }

  /** Runs products with a call that another thread sets to many rows and to one, in turns. */
  private static <T> void race(LinearCall<T> call, T x, T wide, T tight, Runnable product)
      throws Exception {
    AtomicBoolean done = new AtomicBoolean();
    try (var pool = Executors.newSingleThreadExecutor()) {
      Future<?> changes =
          pool.submit(
              () -> {
                while (!done.get()) {
                  call.operands(x, Encoding.F32, K, ROWS, wide, Encoding.F32, N);
                  call.operands(x, Encoding.F32, K, 1, tight, Encoding.F32, N);
                }
              });
      try {
        for (int i = 0; i < ROUNDS; i++) {
          try {
            product.run();
          } catch (IndexOutOfBoundsException torn) {
            assertThat(torn).hasMessageContaining("y");
          }
        }
      } finally {
        done.set(true);
        changes.get();
      }
    }
  }

  private PackedWeight weight(Arena arena) {
    return backend.pack(
        new TestMatrices(arena, 7, true)
            .scaled(
                Encoding.NF4,
                N,
                K,
                CodeOrder.LOW_FIRST,
                Granularity.perGroup(K, 32),
                Encoding.F32));
  }

  @Test
  void onTheDevicesMemoryNothingBeyondItIsWritten() throws Exception {
    try (Arena arena = Arena.ofConfined();
        PackedWeight packed = weight(arena);
        CudaStream stream = backend.stream();
        CudaMemory x = backend.allocate(4L * ROWS * K);
        CudaMemory wide = backend.allocate(4L * ROWS * N);
        CudaMemory tight = backend.allocate(4L * N);
        CudaMemory next = backend.allocate(4L * ROWS * N)) { // where rows beyond y would go
      stream.fill(x, (byte) 0);
      stream.fill(next, (byte) 0x55);
      LinearCall<CudaMemory> call = LinearCall.of(x, Encoding.F32, K, 1, tight, Encoding.F32, N);
      race(call, x, wide, tight, () -> backend.linear(stream, packed, call));
      byte[] found = new byte[4 * ROWS * N];
      stream.download(next, MemorySegment.ofArray(found));
      assertThat(found).containsOnly(0x55);
    }
  }

  /** A kernel that met such an address would end the device's context, and all work with it. */
  @Test
  void addressesThatAreNotAlignedAreRefused() {
    try (Arena arena = Arena.ofConfined();
        PackedWeight packed = weight(arena);
        CudaStream stream = backend.stream();
        CudaMemory memory = backend.allocate(16L * ROWS * N)) {
      CudaMemory x = memory.slice(0, 4L * K);
      CudaMemory y = memory.slice(4L * K, 4L * N);
      CudaMemory odd = memory.slice(8L * N + 2, 4L * N);
      LinearCall<CudaMemory> call = LinearCall.of(x, Encoding.F32, K, 1, y, Encoding.F32, N);
      backend.linear(stream, packed, call);
      assertThatThrownBy(
              () ->
                  backend.linear(
                      stream, packed, LinearCall.of(odd, Encoding.F32, K, 1, y, Encoding.F32, N)))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found x at ")
          .hasMessageContaining("expected a multiple of 4");
      assertThatThrownBy(
              () ->
                  backend.linear(
                      stream, packed, LinearCall.of(x, Encoding.F32, K, 1, odd, Encoding.F32, N)))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found y at ");
      assertThatThrownBy(() -> backend.linear(stream, packed, call.bias(odd)))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found bias at ");
      backend.linear(stream, packed, call.bias(null));
      stream.synchronize();
    }
  }

  @Test
  void onTheHostsMemoryNothingBeyondItIsWritten() throws Exception {
    try (Arena arena = Arena.ofShared();
        PackedWeight packed = weight(arena)) {
      MemorySegment x = arena.allocate(4L * ROWS * K, 64);
      MemorySegment wide = arena.allocate(4L * ROWS * N, 64);
      MemorySegment whole = arena.allocate(4L * ROWS * N, 64).fill((byte) 0x55);
      MemorySegment tight = whole.asSlice(0, 4L * N);
      LinearCall<MemorySegment> call = LinearCall.of(x, Encoding.F32, K, 1, tight, Encoding.F32, N);
      race(call, x, wide, tight, () -> backend.linear(packed, call));
      byte[] beyond = whole.asSlice(4L * N).toArray(ValueLayout.JAVA_BYTE);
      assertThat(beyond).containsOnly(0x55);
    }
  }
}
