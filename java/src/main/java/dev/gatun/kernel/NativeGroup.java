package dev.gatun.kernel;

import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_expert;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** Experts in native memory: threads share the pieces of all of them. */
final class NativeGroup implements PackedGroup {
  private final NativeBackend backend;
  private final NativePacked[] weights;
  private final int threads;
  private final Arena arena = Arena.ofShared();

  /** Holds the memory of biases and multipliers too, which the structs point to. */
  private final List<Expert> experts;

  private final MemorySegment structs;
  private final Pool<Scratch> pool = new Pool<>(Scratch::new);
  private final UseCount uses = new UseCount("group of packed weights", this::free);

  /** One caller's working memory. */
  private static final class Scratch {
    final LinearCall<MemorySegment> call = new LinearCall<>();
    final NativeBuffer offsets = new NativeBuffer();
    final NativeBuffer size = new NativeBuffer();
    final NativeBuffer workspace = new NativeBuffer();
    final NativeBuffer x = new NativeBuffer();
    final NativeBuffer y = new NativeBuffer();
    final NativeBuffer other = new NativeBuffer();

    void close() {
      offsets.close();
      size.close();
      workspace.close();
      x.close();
      y.close();
      other.close();
    }
  }

  /**
   * A group of the backend's own weights.
   *
   * @param threads of a call that does not say how many
   */
  NativeGroup(NativeBackend backend, List<Expert> experts, NativePacked[] weights, int threads) {
    this.backend = backend;
    this.experts = List.copyOf(experts);
    this.weights = weights;
    this.threads = threads;
    structs = gatun_expert.allocateArray(weights.length, arena);
    for (int e = 0; e < weights.length; e++) {
      MemorySegment struct = gatun_expert.asSlice(structs, e);
      gatun_expert.packed(struct, weights[e].address());
      gatun_expert.packed_size(struct, weights[e].byteSize());
      gatun_expert.bias(struct, orNull(this.experts.get(e).bias()));
      gatun_expert.x_multiplier(struct, orNull(this.experts.get(e).multiplier()));
    }
  }

  private static MemorySegment orNull(@Nullable MemorySegment memory) {
    return memory == null ? MemorySegment.NULL : memory;
  }

  @Override
  public void linear(LinearCall<MemorySegment> call, long[] offsets) {
    uses.enter();
    int entered = 0;
    try {
      while (entered < weights.length) {
        weights[entered].enter();
        entered++;
      }
      Scratch scratch = pool.take();
      try {
        LinearCall<MemorySegment> own = scratch.call.set(call).bias(null).multiplier(null);
        LinearCheck.offsets(offsets, weights.length, own.m());
        if (own.m() > 0) {
          own.check(weights[0].n(), weights[0].k());
          own.checkNumbers("native");
          linear(own, offsets, scratch);
        }
      } finally {
        scratch.call.clear();
        if (!pool.give(scratch)) {
          scratch.close();
        }
      }
    } finally {
      while (entered > 0) {
        entered--;
        weights[entered].leave();
      }
      uses.leave();
    }
  }

  private void linear(LinearCall<MemorySegment> call, long[] offsets, Scratch scratch) {
    long m = call.m();
    long n = weights[0].n();
    int workers = call.threads() == 0 ? threads : call.threads();
    MemorySegment rows = scratch.offsets.atLeast((long) offsets.length * Long.BYTES);
    MemorySegment.copy(offsets, 0, rows, ValueLayout.JAVA_LONG, 0, offsets.length);
    if (rows.getAtIndex(ValueLayout.JAVA_LONG, weights.length) != m) { // C checks the others anew
      throw new GatunException("grouped linear: found offsets that another thread changes");
    }
    MemorySegment size = scratch.size.atLeast(Long.BYTES);
    NativeCalls.check(
        gatun_h.gatun_linear_grouped_workspace(
            structs, weights.length, rows, call.compute().id(), workers, size));
    long bytes = size.get(ValueLayout.JAVA_LONG, 0);
    MemorySegment workspace = scratch.workspace.atLeast(bytes);
    int ySize = call.yType().bits() / 8;
    MemorySegment y = call.y();
    boolean copyY = !NativePacked.passes(y, ySize, false);
    long xCount = (m - 1) * call.ldx() + weights[0].k();
    NativeCalls.check(
        gatun_h.gatun_linear_grouped(
            structs,
            weights.length,
            rows,
            NativePacked.passed(call.x(), call.xType().bits() / 8, false, scratch.x, xCount),
            call.xType().id(),
            call.ldx(),
            copyY ? scratch.y.atLeast(m * n * ySize) : y,
            call.yType().id(),
            copyY ? n : call.ldy(),
            call.epilogue().activation().id(),
            call.epilogue().combine().id(),
            NativePacked.passed(
                call.other(), ySize, false, scratch.other, (m - 1) * call.ldOther() + n),
            call.ldOther(),
            call.compute().id(),
            backend.isa(),
            workers,
            workspace,
            workspace.byteSize()));
    if (copyY) {
      NativePacked.copyRows(scratch.y.atLeast(0), y, m, n * ySize, call.ldy() * ySize);
    }
  }

  private void free() {
    pool.drain(Scratch::close);
    arena.close();
  }

  @Override
  public void close() {
    uses.close();
  }
}
