package dev.gatun;

import dev.gatun.kernel.Backend;
import dev.gatun.kernel.MatrixCheck;
import dev.gatun.kernel.PackedWeight;
import dev.gatun.kernel.Pool;
import dev.gatun.kernel.codec.Activations;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Objects;
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
  private final Pool<Workspace[]> workspaces = new Pool<>(PackedLinear::workspaces);
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

  private static Workspace[] workspaces() {
    return new Workspace[] {new Workspace(), new Workspace()};
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
      check(n, k, x, xType, ldx, m, y, yType, ldy, epilogue, other, ldOther);
      Rounding input = roundings.input;
      if (input != null) {
        forwardRounded(input, x, xType, ldx, m, y, yType, ldy, epilogue, other, ldOther);
      } else if (xMultiplier == null && epilogue.equals(Epilogue.NONE)) {
        backend.linear(packed, x, xType, ldx, m, y, yType, ldy, bias, compute, threads);
      } else {
        backend.linear(
            packed,
            x,
            xType,
            ldx,
            m,
            y,
            yType,
            ldy,
            bias,
            xMultiplier,
            epilogue,
            other,
            ldOther,
            compute,
            threads);
      }
    } finally {
      leave();
    }
  }

  /** What multiplies after x has been rounded. */
  private Compute multiply() {
    return roundings.input == null ? compute : roundings.integers ? Compute.I8 : Compute.F32;
  }

  private void forwardRounded(
      Rounding input,
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
    Workspace[] spaces = workspaces.take();
    try {
      MemorySegment rounded =
          spaces[0].atLeast(Math.multiplyExact(Math.multiplyExact(m, k), Float.BYTES));
      backend.round(input, x, xType, ldx, m, k, xMultiplier, rounded, Encoding.F32, k, threads);
      Rounding output = roundings.output;
      if (output == null) {
        product(input, rounded, m, y, yType, ldy, epilogue, other, ldOther);
      } else if (epilogue.equals(Epilogue.NONE)) {
        product(input, rounded, m, y, yType, ldy, epilogue, null, 0);
        backend.round(output, y, yType, ldy, m, n, null, y, yType, ldy, threads);
      } else {
        int size = yType.bits() / 8;
        MemorySegment sums = spaces[1].atLeast(Math.multiplyExact(Math.multiplyExact(m, n), size));
        product(input, rounded, m, sums, yType, n, Epilogue.NONE, null, 0);
        backend.round(output, sums, yType, n, m, n, null, sums, yType, n, threads);
        Activations.apply(epilogue, sums, n, m, n, y, yType, ldy, other, ldOther);
      }
    } finally {
      if (!workspaces.give(spaces)) {
        close(spaces);
      }
    }
  }

  private void product(
      Rounding input,
      MemorySegment rounded,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      long ldOther) {
    if (roundings.integers) {
      backend.linearStatic(
          packed,
          rounded,
          input.scale(),
          m,
          y,
          yType,
          ldy,
          bias,
          epilogue,
          other,
          ldOther,
          threads);
    } else {
      backend.linear(
          packed,
          rounded,
          Encoding.F32,
          k,
          m,
          y,
          yType,
          ldy,
          bias,
          null,
          epilogue,
          other,
          ldOther,
          Compute.F32,
          threads);
    }
  }

  private static void close(Workspace[] spaces) {
    for (Workspace space : spaces) {
      space.close();
    }
  }

  /** Refuses memory of a call that is too short, closed, another thread's, or overlaps. */
  static void check(
      long n,
      long k,
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
    Objects.requireNonNull(x, "x");
    Objects.requireNonNull(y, "y");
    Objects.requireNonNull(epilogue, "epilogue");
    checkOperands(n, k, x, xType, ldx, m, y, yType, ldy);
    MatrixCheck.fused(n, k, m, null, null, epilogue, other, yType, ldOther);
    if (other != null) {
      checkOther(n, m, y, yType, ldy, other, ldOther);
    }
  }

  /** Refuses operands that are too short, closed, another thread's, or overlap. */
  private static void checkOperands(
      long n,
      long k,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy) {
    MatrixCheck.linear(n, k, x, xType, ldx, m, y, yType, ldy);
    live("x", x);
    live("y", y);
    long xBytes = ((m - 1) * ldx + k) * (xType.bits() / 8);
    long yBytes = ((m - 1) * ldy + n) * (yType.bits() / 8);
    if (overlap(x, xBytes, y, yBytes)) {
      throw new GatunException("linear: found x and y that overlap, expected separate memory");
    }
  }

  /** Refuses what y is combined with when it is closed, another thread's, or partly y. */
  private static void checkOther(
      long n,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      MemorySegment other,
      long ldOther) {
    live("other", other);
    int size = yType.bits() / 8;
    boolean same = other.address() == y.address() && ldOther == ldy;
    if (!same && overlap(other, ((m - 1) * ldOther + n) * size, y, ((m - 1) * ldy + n) * size)) {
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

  private void enter() {
    long count = users.incrementAndGet();
    if (count < 0 || count >= CLOSED) {
      leave();
      throw new IllegalStateException("this linear layer is closed");
    }
  }

  private void leave() {
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
      workspaces.drain(PackedLinear::close);
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
