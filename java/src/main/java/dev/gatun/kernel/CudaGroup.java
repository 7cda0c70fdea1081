package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.bindings.gatun_cuda_expert;
import dev.gatun.bindings.gatun_cuda_group;
import dev.gatun.bindings.gatun_cuda_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Packed weights of one shape on a GPU, each for a run of rows of its own: the experts of a
 * mixture. It keeps the weights' memory until it is closed. Made by {@link CudaBackend#groupOf}.
 */
public final class CudaGroup implements AutoCloseable {
  /** Rows an expert, on average, up to which large weights go one after the other. */
  private static final long FEW_ROWS = 1;

  /** Rows an expert, on average, from which the kernels for one weight are the faster ones. */
  private static final long MANY_ROWS = 64;

  /** Bytes of a weight from which reading it takes longer than giving the GPU one more kernel. */
  private static final long MANY_BYTES = 8L << 20;

  /**
   * One of the weights.
   *
   * @param bias N floats, or null
   * @param multiplier K floats, by which its rows of x are multiplied, or null
   */
  public record Expert(
      PackedWeight packed, @Nullable CudaMemory bias, @Nullable CudaMemory multiplier) {
    /** Refuses null for the weight. */
    public Expert {
      Objects.requireNonNull(packed, "packed");
    }
  }

  private final CudaBackend backend;
  private final List<Expert> experts;
  private final CudaPacked first;
  private final CudaMemory block;

  /** The {@code gatun_cuda_group}. */
  private final MemorySegment struct;

  private final List<UseCount> held = new ArrayList<>();
  private final UseCount uses = new UseCount("group of packed weights", this::free);

  /** Experts that the backend packed, all N × K. */
  CudaGroup(CudaBackend backend, List<Expert> experts) {
    this.backend = backend;
    this.experts = List.copyOf(experts);
    this.first = (CudaPacked) this.experts.getFirst().packed();
    this.struct = gatun_cuda_group.allocate(Arena.ofAuto());
    boolean done = false;
    @Nullable CudaMemory made = null;
    try (Arena arena = Arena.ofConfined();
        CudaStream stream = backend.stream()) {
      int count = this.experts.size();
      MemorySegment structs = gatun_cuda_expert.allocateArray(count, arena);
      for (int e = 0; e < count; e++) {
        Expert expert = this.experts.get(e);
        MemorySegment each = gatun_cuda_expert.asSlice(structs, e);
        CudaPacked weight = (CudaPacked) expert.packed();
        hold(weight.uses());
        gatun_cuda_expert.packed(each, weight.struct());
        gatun_cuda_expert.bias(each, held(expert.bias()));
        gatun_cuda_expert.x_multiplier(each, held(expert.multiplier()));
      }
      MemorySegment size = arena.allocate(ValueLayout.JAVA_LONG);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_group_size(count, size));
      long bytes = size.get(ValueLayout.JAVA_LONG, 0);
      made = backend.allocate(bytes);
      block = made;
      CudaCalls.check(
          gatun_cuda_h.gatun_cuda_group_pack(
              stream.device(), structs, count, made.address(), bytes, struct, stream.handle()));
      stream.synchronize();
      done = true;
    } finally {
      if (!done) {
        held.forEach(UseCount::leave);
        if (made != null) {
          made.close();
        }
      }
    }
  }

  private void hold(UseCount use) {
    use.enter();
    held.add(use);
  }

  private long held(@Nullable CudaMemory memory) {
    if (memory == null) {
      return 0;
    }
    hold(memory.uses());
    return memory.address();
  }

  MemorySegment struct() {
    return struct;
  }

  /**
   * {@link CudaBackend#linear(PackedWeight, LinearCall)} of rows {@code offsets[e] ..
   * offsets[e+1]-1} of x, y and other with expert e, for all of them; returns when y is there.
   *
   * @param call whose m is the last offset; bias and multiplier are the experts'
   * @param offsets one more than there are experts, from 0 on, none below the one before
   */
  public void linear(LinearCall<MemorySegment> call, long[] offsets) {
    long[] own = offsets.clone();
    uses.enter();
    try {
      backend.withScratch(scratch -> onHost(scratch, call, own));
    } finally {
      uses.leave();
    }
  }

  private void onHost(CudaScratch scratch, LinearCall<MemorySegment> call, long[] offsets) {
    LinearCall<MemorySegment> own = scratch.call().set(call).bias(null).multiplier(null);
    try {
      LinearCheck.offsets(offsets, experts.size(), own.m());
      if (own.m() == 0) {
        return;
      }
      long n = first.n();
      long k = first.k();
      own.check(n, k);
      own.checkNumbers("grouped linear");
      long m = own.m();
      int xSize = own.xType().bits() / 8;
      int ySize = own.yType().bits() / 8;
      long offsetBytes = (long) offsets.length * Long.BYTES;
      scratch.room(
          CudaScratch.piece(m * k * xSize)
              + 2 * CudaScratch.piece(m * n * ySize)
              + CudaScratch.piece(offsetBytes));
      CudaOperands on = scratch.operands();
      on.clear();
      on.x = scratch.upload(own.x(), m, k * xSize, own.ldx() * xSize);
      on.ldx = k;
      on.other = scratch.upload(own.other(), m, n * ySize, own.ldOther() * ySize);
      on.ldOther = n;
      on.y = scratch.next(m * n * ySize);
      on.ldy = n;
      if (goesTogether(own)) {
        long on64 = scratch.upload(MemorySegment.ofArray(offsets), 1, offsetBytes, 0);
        scratch.stream().linear(this, own, on, on64);
      } else {
        oneByOne(scratch.stream(), own, on, offsets);
      }
      scratch.stream()
          .staging()
          .download(scratch.operands().y, own.y(), m, n * ySize, own.ldy() * ySize);
    } finally {
      own.clear();
    }
  }

  /**
   * Large weights by few rows each are multiplied faster one after the other; where there is no
   * kernel for all of them on this GPU's warpgroups, codes of x and many rows are as well.
   */
  private boolean goesTogether(LinearCall<?> call) {
    if (call.compute() == Compute.F32) {
      return true;
    }
    boolean large = first.byteSize() >= MANY_BYTES;
    if ((gatun_cuda_group.hopper(struct) & 1 << call.compute().id()) != 0) {
      return !large || call.m() > FEW_ROWS * experts.size();
    }
    return call.compute() == Compute.BF16 && !large && call.m() <= MANY_ROWS * experts.size();
  }

  private void oneByOne(
      CudaStream stream, LinearCall<MemorySegment> call, CudaOperands all, long[] offsets) {
    long xBytes = all.ldx * (call.xType().bits() / 8);
    long yBytes = all.ldy * (call.yType().bits() / 8);
    CudaOperands on = new CudaOperands();
    on.ldx = all.ldx;
    on.ldy = all.ldy;
    on.ldOther = all.ldOther;
    LinearCall<MemorySegment> rows = new LinearCall<MemorySegment>().set(call);
    for (int e = 0; e < experts.size(); e++) {
      long row = offsets[e];
      if (offsets[e + 1] > row) {
        Expert expert = experts.get(e);
        on.x = all.x + row * xBytes;
        on.y = all.y + row * yBytes;
        on.other = all.other == 0 ? 0 : all.other + row * yBytes;
        on.bias = address(expert.bias());
        on.multiplier = address(expert.multiplier());
        rows.operands(
            call.x(),
            call.xType(),
            call.ldx(),
            offsets[e + 1] - row,
            call.y(),
            call.yType(),
            call.ldy());
        stream.linear((CudaPacked) expert.packed(), rows, on);
      }
    }
  }

  private static long address(@Nullable CudaMemory memory) {
    return memory == null ? 0 : memory.address();
  }

  /**
   * The same on the device's memory, given to a stream; returns before it is done. Where the rows
   * of an expert begin, only the device need know.
   *
   * @param call whose m is the last offset or more; bias and multiplier are the experts'
   * @param offsets 64-bit integers, one more than there are experts, from 0 on, none below the one
   *     before. The device cannot refuse others: it then leaves rows out or multiplies some twice
   * @throws IndexOutOfBoundsException when memory is too short
   * @throws IllegalStateException when something of it is closed
   */
  public void linear(CudaStream stream, LinearCall<CudaMemory> call, CudaMemory offsets) {
    LinearCall<CudaMemory> own = backend.takeCall();
    try {
      own.set(call).bias(null).multiplier(null);
      if (offsets.byteSize() / Long.BYTES < experts.size() + 1) {
        throw new IndexOutOfBoundsException(
            "grouped linear: found offsets of "
                + offsets.byteSize()
                + " bytes, expected "
                + (experts.size() + 1)
                + " 64-bit integers");
      }
      CudaProducts.onDevice(stream, this, own, offsets);
    } finally {
      backend.giveCall(own);
    }
  }

  /** N and K of every expert. */
  long n() {
    return first.n();
  }

  long k() {
    return first.k();
  }

  CudaMemory block() {
    return block;
  }

  UseCount uses() {
    return uses;
  }

  private void free() {
    held.forEach(UseCount::leave);
    block.close();
  }

  /** Lets the weights go. A second call does nothing. */
  @Override
  public void close() {
    uses.close();
  }
}
