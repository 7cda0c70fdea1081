package dev.gatun;

import dev.gatun.kernel.Backend;
import dev.gatun.kernel.LinearCall;
import dev.gatun.kernel.PackedGroup;
import dev.gatun.kernel.PackedWeight;
import dev.gatun.kernel.Pool;
import dev.gatun.kernel.codec.Activations;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * A packed weight, its bias, and what x is multiplied by. The last forward that runs when it is
 * closed frees the memory.
 */
final class PackedLinear implements Linear {
  private static final long CLOSED = 1L << 62;

  private final Backend backend;
  private final PackedWeight packed;
  private final @Nullable MemorySegment bias;
  private final @Nullable MemorySegment xMultiplier;
  private final Roundings roundings;
  private final Pool<Kept> pool = new Pool<>(Kept::new);
  private final Arena arena;
  private final Compute compute;
  private final int threads;
  private final long n;
  private final long k;

  /**
   * How a calibrated layer rounds x and y.
   *
   * @param input of x; null: the layer is none of those
   * @param output of y, before the epilogue; null: y is not rounded
   * @param integers whether integers are multiplied, rather than their values as floats
   */
  record Roundings(@Nullable Rounding input, @Nullable Rounding output, boolean integers) {
    static final Roundings NONE = new Roundings(null, null, false);
  }

  /** What one caller finds again the next time. */
  private static final class Kept {
    final LinearCall<MemorySegment> call = new LinearCall<>();
    final Workspace rounded = new Workspace();
    final Workspace sums = new Workspace();

    void close() {
      rounded.close();
      sums.close();
    }
  }

  /** How many calls run, plus {@link #CLOSED} once closed. */
  private final AtomicLong users = new AtomicLong();

  PackedLinear(
      Backend backend,
      PackedWeight packed,
      @Nullable MemorySegment bias,
      @Nullable MemorySegment xMultiplier,
      Roundings roundings,
      Arena arena,
      Compute compute,
      int threads) {
    this.roundings = roundings;
    this.backend = backend;
    this.packed = packed;
    this.bias = bias;
    this.xMultiplier = xMultiplier;
    this.arena = arena;
    this.compute = compute;
    this.threads = threads;
    this.n = packed.n();
    this.k = packed.k();
  }

  @Override
  public long outFeatures() {
    return n;
  }

  @Override
  public long inFeatures() {
    return k;
  }

  @Override
  public Compute compute() {
    return compute;
  }

  @Override
  public String kernel(long m) {
    if (m < 1) {
      throw new GatunException("linear: found " + m + " rows, expected at least 1");
    }
    enter();
    try {
      return packed.kernel(multiply(), m) + (compute.isStatic() ? "+static" : "");
    } finally {
      leave();
    }
  }

  @Override
  public void forward(
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      long ldOther) {
    enter();
    try {
      Kept kept = pool.take();
      LinearCall<MemorySegment> call = kept.call;
      try {
        call.operands(x, xType, ldx, m, y, yType, ldy)
            .multiplier(null)
            .epilogue(epilogue, other, ldOther);
        check(n, k, call);
        call.bias(bias).threads(threads);
        Rounding input = roundings.input;
        if (input == null) {
          backend.linear(packed, call.multiplier(xMultiplier).compute(compute));
        } else {
          forwardRounded(input, call, kept);
        }
      } finally {
        call.clear();
        if (!pool.give(kept)) {
          kept.close();
        }
      }
    } finally {
      leave();
    }
  }

  /** What multiplies after x has been rounded. */
  private Compute multiply() {
    return roundings.input == null ? compute : roundings.integers ? Compute.I8 : Compute.F32;
  }

  /** The call has no multiplier: x is multiplied when it is rounded. */
  private void forwardRounded(Rounding input, LinearCall<MemorySegment> call, Kept kept) {
    long m = call.m();
    MemorySegment y = call.y();
    Encoding yType = call.yType();
    long ldy = call.ldy();
    Epilogue epilogue = call.epilogue();
    MemorySegment other = call.other();
    MemorySegment rounded =
        kept.rounded.atLeast(Math.multiplyExact(Math.multiplyExact(m, k), Float.BYTES));
    backend.round(
        input,
        call.x(),
        call.xType(),
        call.ldx(),
        m,
        k,
        xMultiplier,
        rounded,
        Encoding.F32,
        k,
        threads);
    call.compute(multiply()).rounded(roundings.integers ? input.scale() : 0);
    Rounding output = roundings.output;
    if (output == null) {
      backend.linear(packed, call.operands(rounded, Encoding.F32, k, m, y, yType, ldy));
    } else if (epilogue.equals(Epilogue.NONE)) {
      backend.linear(packed, call.operands(rounded, Encoding.F32, k, m, y, yType, ldy));
      backend.round(output, y, yType, ldy, m, n, null, y, yType, ldy, threads);
    } else {
      long size = Math.multiplyExact(Math.multiplyExact(m, n), yType.bits() / 8);
      MemorySegment sums = kept.sums.atLeast(size);
      long ldOther = call.ldOther();
      call.operands(rounded, Encoding.F32, k, m, sums, yType, n).epilogue(Epilogue.NONE, null, 0);
      backend.linear(packed, call);
      backend.round(output, sums, yType, n, m, n, null, sums, yType, n, threads);
      Activations.apply(epilogue, sums, n, m, n, y, yType, ldy, other, ldOther);
    }
  }

  /** Refuses memory that is too short, closed, another thread's, or overlaps. */
  static void check(long n, long k, LinearCall<MemorySegment> call) {
    call.check(n, k);
    MemorySegment x = call.x();
    MemorySegment y = call.y();
    MemorySegment other = call.other();
    live("x", x);
    live("y", y);
    long rows = call.m() - 1;
    int size = call.yType().bits() / 8;
    long yBytes = (rows * call.ldy() + n) * size;
    if (overlap(x, (rows * call.ldx() + k) * (call.xType().bits() / 8), y, yBytes)) {
      throw new GatunException("linear: found x and y that overlap, expected separate memory");
    }
    if (other == null) {
      return;
    }
    live("other", other);
    boolean same = other.address() == y.address() && call.ldOther() == call.ldy();
    if (!same && overlap(other, (rows * call.ldOther() + n) * size, y, yBytes)) {
      throw new GatunException(
          "linear: found other and y that overlap in part, expected y itself or separate memory");
    }
  }

  private static boolean overlap(MemorySegment a, long aBytes, MemorySegment b, long bBytes) {
    // Addresses of two heap segments compare only when they are of one array.
    return a.asOverlappingSlice(b).isPresent()
        && a.address() < b.address() + bBytes
        && b.address() < a.address() + aBytes;
  }

  private static void live(String what, MemorySegment segment) {
    if (!segment.scope().isAlive()) {
      throw new IllegalStateException("linear: the memory of " + what + " is closed");
    }
    if (!segment.isAccessibleBy(Thread.currentThread())) {
      throw new WrongThreadException(
          "linear: the memory of " + what + " belongs to another thread");
    }
  }

  /** Whether a layer can run together with this one. */
  boolean goesWith(Linear other) {
    return other instanceof PackedLinear linear
        && linear.backend.equals(backend)
        && linear.compute == compute
        && linear.roundings.input == null
        && roundings.input == null;
  }

  /** This layer's part of a group. */
  PackedGroup.Expert expert() {
    return new PackedGroup.Expert(packed, bias, xMultiplier);
  }

  Backend backend() {
    return backend;
  }

  int threads() {
    return threads;
  }

  /** Every successful call is followed by one of {@link #leave}. */
  void enter() {
    long count = users.incrementAndGet();
    if (count < 0 || count >= CLOSED) {
      leave();
      throw new IllegalStateException("this linear layer is closed");
    }
  }

  void leave() {
    if (users.decrementAndGet() == CLOSED) {
      free();
    }
  }

  /**
   * Several threads may find that nobody is left; the one that moves the count below zero frees.
   */
  private void free() {
    if (users.compareAndSet(CLOSED, Long.MIN_VALUE)) {
      packed.close();
      arena.close();
      pool.drain(Kept::close);
    }
  }

  @Override
  public void close() {
    long count = users.get();
    while (count >= 0 && count < CLOSED) {
      if (users.compareAndSet(count, count + CLOSED)) {
        if (count == 0) {
          free();
        }
        return;
      }
      count = users.get();
    }
  }
}
