package dev.gatun.kernel;

import java.lang.foreign.MemorySegment;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** One expert after the other: the definition of a grouped product. */
final class LoopedGroup implements PackedGroup {
  private final Backend backend;
  private final List<Expert> experts;

  LoopedGroup(Backend backend, List<Expert> experts) {
    this.backend = backend;
    this.experts = List.copyOf(experts);
    LinearCheck.experts(experts);
  }

  @Override
  public void linear(LinearCall<MemorySegment> call, long[] offsets) {
    LinearCheck.offsets(offsets, experts.size(), call.m());
    if (call.m() == 0) {
      return;
    }
    PackedWeight first = experts.getFirst().packed();
    call.bias(null).multiplier(null).check(first.n(), first.k());
    MemorySegment x = call.x();
    MemorySegment y = call.y();
    MemorySegment other = call.other();
    long ldx = call.ldx();
    long ldy = call.ldy();
    long ldOther = call.ldOther();
    for (int e = 0; e < experts.size(); e++) {
      long row = offsets[e];
      long rows = offsets[e + 1] - row;
      if (rows > 0) {
        Expert expert = experts.get(e);
        int size = call.yType().bits() / 8;
        call.operands(
                x.asSlice(row * ldx * (call.xType().bits() / 8)),
                call.xType(),
                ldx,
                rows,
                y.asSlice(row * ldy * size),
                call.yType(),
                ldy)
            .epilogue(call.epilogue(), from(other, row * ldOther * size), ldOther)
            .bias(expert.bias())
            .multiplier(expert.multiplier());
        backend.linear(expert.packed(), call);
      }
    }
  }

  private static @Nullable MemorySegment from(@Nullable MemorySegment memory, long offset) {
    return memory == null ? null : memory.asSlice(offset);
  }

  @Override
  public void close() {}
}
