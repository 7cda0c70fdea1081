package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.GatunException;
import java.lang.foreign.MemorySegment;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * What one product y = combine(activation(x' · Wᵀ + bias), other) is made of besides the weight,
 * with {@code x'[m][k] = float(x[m][k] · multiplier[k])}. It may be filled and used again and
 * again, so that a warm caller allocates nothing; it is for one thread at a time.
 *
 * <pre>{@code
 * backend.linear(packed, LinearCall.of(x, BF16, k, m, y, F32, n).bias(bias).compute(Compute.BF16));
 * }</pre>
 *
 * @param <T> where the numbers lie: {@link MemorySegment} on the host, {@link CudaMemory} on a GPU
 */
public final class LinearCall<T> {
  /** Columns of x that share a scale with compute type F8_BLOCK. */
  private static final long X_BLOCK = 128;

  private @Nullable T x;
  private Encoding xType = Encoding.F32;
  private long ldx;
  private long m;
  private @Nullable T y;
  private Encoding yType = Encoding.F32;
  private long ldy;
  private @Nullable T bias;
  private @Nullable T multiplier;
  private Epilogue epilogue = Epilogue.NONE;
  private @Nullable T other;
  private long ldOther;
  private float xScale;
  private @Nullable T xScales;
  private long xScaleRowStride;
  private long xScaleColumnStride;
  private Compute compute = Compute.F32;
  private int threads;

  /** Nothing yet: {@link #operands} comes next. */
  public LinearCall() {}

  /** A call in floats without bias and epilogue; see {@link #operands}. */
  public static <T> LinearCall<T> of(
      T x, Encoding xType, long ldx, long m, T y, Encoding yType, long ldy) {
    return new LinearCall<T>().operands(x, xType, ldx, m, y, yType, ldy);
  }

  /**
   * What is multiplied, and where the result goes. All else that was set stays.
   *
   * @param x M × K of {@code xType} (F32, F16, BF16), rows {@code ldx} elements apart
   * @param y M × N of {@code yType} (the same), rows {@code ldy} elements apart; must not overlap x
   */
  public LinearCall<T> operands(
      T x, Encoding xType, long ldx, long m, T y, Encoding yType, long ldy) {
    this.x = Objects.requireNonNull(x, "x");
    this.xType = Objects.requireNonNull(xType, "xType");
    this.ldx = ldx;
    this.m = m;
    this.y = Objects.requireNonNull(y, "y");
    this.yType = Objects.requireNonNull(yType, "yType");
    this.ldy = ldy;
    return this;
  }

  /**
   * What is added to every row of the product.
   *
   * @param bias N floats, or null
   */
  public LinearCall<T> bias(@Nullable T bias) {
    this.bias = bias;
    return this;
  }

  /**
   * What every row of x is multiplied by first.
   *
   * @param multiplier K floats, or null
   */
  public LinearCall<T> multiplier(@Nullable T multiplier) {
    this.multiplier = multiplier;
    return this;
  }

  /**
   * What becomes of a sum.
   *
   * @param other M × N of y's type, rows {@code ldOther} elements apart: y itself (same address and
   *     stride) or memory that does not overlap y; null when the epilogue combines nothing
   */
  public LinearCall<T> epilogue(Epilogue epilogue, @Nullable T other, long ldOther) {
    this.epilogue = Objects.requireNonNull(epilogue, "epilogue");
    this.other = other;
    this.ldOther = ldOther;
    return this;
  }

  /** What the multiply is done in. */
  public LinearCall<T> compute(Compute compute) {
    this.compute = Objects.requireNonNull(compute, "compute");
    return this;
  }

  /**
   * Says that x is rounded already, for compute type I8: it holds multiples of one scale, -128 to
   * 127 times it, and no row is given a scale of its own.
   *
   * @param xScale a positive number; 0: x is not rounded
   */
  public LinearCall<T> rounded(float xScale) {
    if (xScale != 0 && (!(xScale > 0) || Float.isInfinite(xScale))) {
      throw new GatunException(
          "linear: found a scale of x of " + xScale + ", expected a positive number");
    }
    this.xScale = xScale;
    return this;
  }

  /**
   * Says that x was quantized before: it holds codes of I8 (for compute type I8) or F8_E4M3
   * (F8_ROW, F8_BLOCK) with scales of its own.
   *
   * @param xScales floats, or null: x holds numbers; the scale of row r and column c of x is number
   *     {@code r · rowStride + c / 128 · columnStride}
   * @param rowStride 0 for one scale for all rows
   * @param columnStride 0 unless compute is F8_BLOCK
   */
  public LinearCall<T> codes(@Nullable T xScales, long rowStride, long columnStride) {
    this.xScales = xScales;
    this.xScaleRowStride = rowStride;
    this.xScaleColumnStride = columnStride;
    return this;
  }

  /** How many threads work on it; 0: as many as the backend has. */
  public LinearCall<T> threads(int threads) {
    this.threads = threads;
    return this;
  }

  /**
   * Takes all that another call holds. A backend checks and runs such a copy: the caller's own call
   * may change under it when threads share it against the rules, and native memory has no bounds.
   */
  LinearCall<T> set(LinearCall<T> from) {
    x = from.x;
    xType = from.xType;
    ldx = from.ldx;
    m = from.m;
    y = from.y;
    yType = from.yType;
    ldy = from.ldy;
    bias = from.bias;
    multiplier = from.multiplier;
    epilogue = from.epilogue;
    other = from.other;
    ldOther = from.ldOther;
    xScale = from.xScale;
    xScales = from.xScales;
    xScaleRowStride = from.xScaleRowStride;
    xScaleColumnStride = from.xScaleColumnStride;
    compute = from.compute;
    threads = from.threads;
    return this;
  }

  /** Lets go of all memory. */
  public void clear() {
    x = null;
    y = null;
    bias = null;
    multiplier = null;
    other = null;
    xScales = null;
  }

  /**
   * Refuses what cannot be: types, counts, strides, memory that is too short, an {@code other} that
   * does not fit the epilogue. Allocates nothing unless it throws.
   *
   * @throws GatunException for a type, a count or a stride that cannot be
   * @throws IndexOutOfBoundsException for memory that is too short
   */
  public void check(long n, long k) {
    if (y instanceof MemorySegment segment && segment.isReadOnly()) {
      throw new GatunException("linear: found a read-only y, expected one that can be written");
    }
    if (xScales == null) {
      LinearCheck.linear(n, k, bytes(x), xType, ldx, m, bytes(y), yType, ldy);
    } else {
      checkCodes(n, k);
    }
    LinearCheck.fused(
        n, k, m, bytes(bias), bytes(multiplier), epilogue, bytes(other), yType, ldOther);
    if (isRounded() && (compute != Compute.I8 || multiplier != null)) {
      throw new GatunException(
          "linear: found x that is rounded for I8, and "
              + (compute != Compute.I8 ? "compute " + compute : "a multiplier")
              + ", expected compute I8 without one");
    }
  }

  private void checkCodes(long n, long k) {
    Encoding expected = compute.isFloats8() ? Encoding.F8_E4M3 : Encoding.I8;
    boolean multiplied = compute == Compute.I8 || compute.isFloats8();
    if (!multiplied || xType != expected || isRounded() || multiplier != null) {
      throw new GatunException(
          "linear: found codes of x of "
              + xType
              + " with compute "
              + compute
              + (multiplier != null ? " and a multiplier" : "")
              + ", expected I8 with I8, or F8_E4M3 with F8_ROW or F8_BLOCK, without one");
    }
    if (xScaleRowStride < 0
        || xScaleColumnStride < 0
        || (compute != Compute.F8_BLOCK && xScaleColumnStride != 0)) {
      throw new GatunException(
          "linear: found scales of x "
              + xScaleRowStride
              + " and "
              + xScaleColumnStride
              + " apart, expected at least 0, and no columns of scales unless compute is F8_BLOCK");
    }
    LinearCheck.codes(n, k, bytes(x), ldx, m, bytes(y), yType, ldy);
    if (bytes(xScales) / Float.BYTES < xScaleCount(k)) {
      throw new IndexOutOfBoundsException(
          "linear: found scales of x of "
              + bytes(xScales)
              + " bytes, expected "
              + xScaleCount(k)
              + " floats");
    }
  }

  private static long bytes(@Nullable Object memory) {
    return memory instanceof MemorySegment segment
        ? segment.byteSize()
        : memory instanceof CudaMemory onGpu ? onGpu.byteSize() : -1;
  }

  private static <T> T there(String what, @Nullable T memory) {
    if (memory == null) {
      throw new IllegalStateException("linear: found a call without " + what);
    }
    return memory;
  }

  /** M × K numbers. */
  public T x() {
    return there("x", x);
  }

  /** Of what type x is. */
  public Encoding xType() {
    return xType;
  }

  /** Elements from one row of x to the next. */
  public long ldx() {
    return ldx;
  }

  /** M: rows of x and y. */
  public long m() {
    return m;
  }

  /** M × N numbers. */
  public T y() {
    return there("y", y);
  }

  /** Of what type y is. */
  public Encoding yType() {
    return yType;
  }

  /** Elements from one row of y to the next. */
  public long ldy() {
    return ldy;
  }

  /** N floats, or null. */
  public @Nullable T bias() {
    return bias;
  }

  /** K floats, or null. */
  public @Nullable T multiplier() {
    return multiplier;
  }

  /** What becomes of a sum. */
  public Epilogue epilogue() {
    return epilogue;
  }

  /** What y is combined with, or null. */
  public @Nullable T other() {
    return other;
  }

  /** Elements from one row of {@code other} to the next. */
  public long ldOther() {
    return ldOther;
  }

  /** Whether x holds multiples of {@link #xScale()} already. */
  public boolean isRounded() {
    return xScale != 0;
  }

  /** The scale of all of x when it is rounded already; 0 when it is not. */
  public float xScale() {
    return xScale;
  }

  /** The scales of x when it holds codes, or null. */
  public @Nullable T xScales() {
    return xScales;
  }

  /** Floats from the scales of one row of x to those of the next. */
  public long xScaleRowStride() {
    return xScaleRowStride;
  }

  /** Floats from the scale of 128 columns of x to that of the next. */
  public long xScaleColumnStride() {
    return xScaleColumnStride;
  }

  /** Which of the scales of x an element of it has. */
  long xScaleIndex(long row, long column) {
    return row * xScaleRowStride + column / X_BLOCK * xScaleColumnStride;
  }

  /** How many floats the scales of x reach over; 0 when x holds numbers. */
  long xScaleCount(long k) {
    return xScales == null
        ? 0
        : 1
            + Math.addExact(
                Math.multiplyExact(m - 1, xScaleRowStride),
                Math.multiplyExact(Math.max(0, k - 1) / X_BLOCK, xScaleColumnStride));
  }

  /** Refuses codes of x, for a backend that takes numbers only. */
  public void checkNumbers(String backend) {
    if (xScales != null) {
      throw new GatunException(
          backend + ": found codes of x, expected numbers: it quantizes x itself");
    }
  }

  /** What the multiply is done in. */
  public Compute compute() {
    return compute;
  }

  /** How many threads work on it; 0: as many as the backend has. */
  public int threads() {
    return threads;
  }

  /** Whether there is neither a multiplier nor an epilogue. */
  public boolean isPlain() {
    return multiplier == null && epilogue.equals(Epilogue.NONE);
  }
}
