package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.concurrent.atomic.AtomicReferenceArray;
import org.jspecify.annotations.Nullable;

/** A packed weight in native memory, and the working memory of the calls that use it. */
final class NativePacked implements PackedWeight {
  /** As many callers at once find their working memory again; others allocate it. */
  private static final int KEPT = 16;

  /**
   * Up to as many multiplications a call takes heap arrays as they are. The garbage collector waits
   * for such a call, and a million multiplications are some 0.1 ms on one thread with AVX-512 and 1
   * ms without: no longer than it waits for safepoints anyway. Beyond it copying x and y costs one
   * part in min(N, K) of the work.
   */
  static final long SHORT_WORK = 1 << 20;

  /** Rows of the call that finds out which kernel runs. */
  private static final long DRY_ROWS = 32;

  private final NativeBackend backend;
  private final Matrix description;
  private final Arena arena;
  private final MemorySegment block;

  /** The block without a scope: {@link #uses} holds it open, and the linker need not. */
  private final MemorySegment address;

  private final AtomicReferenceArray<@Nullable NativeScratch> kept =
      new AtomicReferenceArray<>(KEPT);
  private final UseCount uses = new UseCount("packed weight", this::free);

  NativePacked(NativeBackend backend, Matrix description, Arena arena, MemorySegment block) {
    this.backend = backend;
    this.description = description;
    this.arena = arena;
    this.block = block;
    this.address = MemorySegment.ofAddress(block.address());
  }

  /**
   * {@link Backend#linear}.
   *
   * @param threads of a call that does not say how many
   */
  void linear(LinearCall<MemorySegment> call, int threads) {
    uses.enter();
    try {
      NativeScratch scratch = take();
      try {
        LinearCall<MemorySegment> own = scratch.call.set(call);
        own.check(n(), k());
        own.checkNumbers("native");
        linear(own, own.threads() == 0 ? threads : own.threads(), scratch);
      } finally {
        scratch.call.clear();
        give(scratch);
      }
    } finally {
      uses.leave();
    }
  }

  private void linear(LinearCall<MemorySegment> call, int threads, NativeScratch scratch) {
    long m = call.m();
    boolean isShort = m <= SHORT_WORK && m * work() <= SHORT_WORK;
    scratch.workspace(address, block.byteSize(), m, call.compute().id(), threads);
    int ySize = call.yType().bits() / 8;
    MemorySegment y = call.y();
    boolean copyY = !passes(y, ySize, isShort);
    MemorySegment nativeY = copyY ? scratch.roomForY(m * n() * ySize) : y;
    long ldNativeY = copyY ? n() : call.ldy();
    int xSize = call.xType().bits() / 8;
    MemorySegment x = passed(call.x(), xSize, isShort, scratch.x, (m - 1) * call.ldx() + k());
    MemorySegment bias = passed(call.bias(), Float.BYTES, isShort, scratch.bias, n());
    MemorySegment other =
        passed(call.other(), ySize, isShort, scratch.other, (m - 1) * call.ldOther() + n());
    if (call.isRounded()) {
      NativeCalls.linearStatic(
          isShort,
          address,
          block.byteSize(),
          x,
          call.xType().id(),
          call.ldx(),
          call.xScale(),
          m,
          nativeY,
          call.yType().id(),
          ldNativeY,
          bias,
          call.epilogue().activation().id(),
          call.epilogue().combine().id(),
          other,
          call.ldOther(),
          backend.isa(),
          threads,
          scratch.workspace(),
          scratch.workspaceSize());
    } else {
      NativeCalls.linear(
          isShort,
          address,
          block.byteSize(),
          x,
          call.xType().id(),
          call.ldx(),
          m,
          nativeY,
          call.yType().id(),
          ldNativeY,
          bias,
          passed(call.multiplier(), Float.BYTES, isShort, scratch.multiplier, k()),
          call.epilogue().activation().id(),
          call.epilogue().combine().id(),
          other,
          call.ldOther(),
          call.compute().id(),
          backend.isa(),
          threads,
          scratch.workspace(),
          scratch.workspaceSize());
    }
    if (copyY) {
      copyRows(nativeY, y, m, n() * ySize, call.ldy() * ySize);
    }
  }

  /** Rows of so many bytes to rows that lie further apart. */
  static void copyRows(MemorySegment from, MemorySegment to, long count, long bytes, long apart) {
    for (long i = 0; i < count; i++) {
      MemorySegment.copy(from, i * bytes, to, i * apart, bytes);
    }
  }

  /** Every successful call is followed by one of {@link #leave}. */
  void enter() {
    uses.enter();
  }

  void leave() {
    uses.leave();
  }

  /** The packed form's address, for those who have entered. */
  MemorySegment address() {
    return address;
  }

  /** What C is handed for memory that it reads: the memory itself, a copy, or null. */
  static MemorySegment passed(
      @Nullable MemorySegment memory, int size, boolean isShort, NativeBuffer room, long count) {
    if (memory == null) {
      return MemorySegment.NULL;
    }
    return passes(memory, size, isShort) ? memory : room.copy(memory, count * size);
  }

  /**
   * Whether C can take the memory as it lies: native or in the heap for a short call, and aligned.
   */
  static boolean passes(MemorySegment memory, int size, boolean isShort) {
    return (isShort || memory.isNative()) && memory.address() % size == 0;
  }

  /** Multiplications of one row of x, no more than matters here. */
  private long work() {
    long n = Math.min(n(), SHORT_WORK + 1);
    return n * Math.min(k(), SHORT_WORK + 1);
  }

  void unpack(Matrix into) {
    uses.enter();
    try (Arena call = Arena.ofConfined()) {
      MatrixCheck.unpack(description, into);
      NativeMatrix matrix = new NativeMatrix(into, call);
      NativeCalls.unpack(block, matrix);
      matrix.copyBack();
    } finally {
      uses.leave();
    }
  }

  /** The packed form. */
  MemorySegment block() {
    return block.asReadOnly();
  }

  NativeBackend backend() {
    return backend;
  }

  private NativeScratch take() {
    for (int i = 0; i < KEPT; i++) {
      NativeScratch scratch = kept.getAndSet(i, null);
      if (scratch != null) {
        return scratch;
      }
    }
    return new NativeScratch();
  }

  private void give(NativeScratch scratch) {
    for (int i = 0; i < KEPT; i++) {
      if (kept.compareAndSet(i, null, scratch)) {
        return;
      }
    }
    scratch.close();
  }

  private void free() {
    for (int i = 0; i < KEPT; i++) {
      NativeScratch scratch = kept.getAndSet(i, null);
      if (scratch != null) {
        scratch.close();
      }
    }
    arena.close();
  }

  @Override
  public long n() {
    return description.n();
  }

  @Override
  public long k() {
    return description.k();
  }

  @Override
  public long byteSize() {
    return block.byteSize();
  }

  /**
   * Which one depends on how the weight could be laid out, and that the library only tells of a
   * call that it has run: it runs one, on zeros.
   */
  @Override
  public String kernel(Compute compute, long m) {
    long rows = Math.clamp(m, 1, DRY_ROWS);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment x = arena.allocate(rows * k() * Float.BYTES, 64);
      MemorySegment y = arena.allocate(rows * n() * Float.BYTES, 64);
      linear(LinearCall.of(x, Encoding.F32, k(), rows, y, Encoding.F32, n()).compute(compute), 1);
    }
    return backend.last().name();
  }

  @Override
  public void close() {
    uses.close();
  }

  /** One caller's working memory. It grows to what was needed most, and stays. */
  private static final class NativeScratch {
    private final LinearCall<MemorySegment> call = new LinearCall<>();
    private final NativeBuffer size = new NativeBuffer();
    private final NativeBuffer workspace = new NativeBuffer();
    private final NativeBuffer x = new NativeBuffer();
    private final NativeBuffer y = new NativeBuffer();
    private final NativeBuffer bias = new NativeBuffer();
    private final NativeBuffer multiplier = new NativeBuffer();
    private final NativeBuffer other = new NativeBuffer();
    private int compute;
    private int threads;
    private long rows;
    private long workspaceSize;

    /** Asks how much workspace is needed, unless the last answer covers this call. */
    void workspace(MemorySegment packed, long packedSize, long m, int compute, int threads) {
      if (compute == this.compute && threads == this.threads && m <= rows) {
        return;
      }
      MemorySegment answer = size.atLeast(Long.BYTES);
      NativeCalls.check(
          gatun_h.gatun_linear_workspace(packed, packedSize, m, compute, threads, answer));
      workspaceSize = answer.get(ValueLayout.JAVA_LONG, 0);
      workspace.atLeast(workspaceSize);
      this.compute = compute;
      this.threads = threads;
      this.rows = m;
    }

    MemorySegment workspace() {
      return workspace.atLeast(workspaceSize);
    }

    long workspaceSize() {
      return workspaceSize;
    }

    MemorySegment roomForY(long bytes) {
      return y.atLeast(bytes);
    }

    void close() {
      size.close();
      workspace.close();
      x.close();
      y.close();
      bias.close();
      multiplier.close();
      other.close();
    }
  }
}
