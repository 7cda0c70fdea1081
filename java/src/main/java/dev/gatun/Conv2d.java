package dev.gatun;

import dev.gatun.kernel.Pool;
import java.lang.foreign.MemorySegment;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * A two-dimensional convolution, packed for one device, on the kernels of {@link Linear}: output
 * positions become rows of a matrix (im2col), some of them at a time, which the weight multiplies.
 * Thread-safe; {@code forward} allocates nothing once warm.
 *
 * <pre>
 * y[b][o][i][j] = bias[o] + Σ w[o][c][u][v] · x[b][g·C + c][i·stride + u·dilation - padding][…]
 * </pre>
 *
 * where c runs over the C input channels of o's group g, and x is zero outside. Images are NCHW,
 * weights [N, C, height, width], as PyTorch has them.
 */
public final class Conv2d implements AutoCloseable {
  /** Numbers of x that are brought side by side at once. */
  private static final long AT_ONCE = 1 << 18;

  /** Positions at once at least, where there are as many: a multiply of few rows is slow. */
  private static final long LEAST_ROWS = 32;

  /**
   * How the window moves over an image. Vertical first.
   *
   * @param strideHeight at least 1
   * @param strideWidth at least 1
   * @param paddingHeight zeros above and below
   * @param paddingWidth zeros left and right
   * @param dilationHeight distance of the weight's rows in the image; at least 1
   * @param dilationWidth distance of the weight's columns in the image; at least 1
   * @param groups into which input and output channels are split
   */
  public record Geometry(
      int strideHeight,
      int strideWidth,
      int paddingHeight,
      int paddingWidth,
      int dilationHeight,
      int dilationWidth,
      int groups) {
    /** Stride 1, no padding, no dilation, one group. */
    public static final Geometry DEFAULT = of(1, 0);

    /** Refuses what no convolution has. */
    public Geometry {
      if (Math.min(Math.min(strideHeight, strideWidth), Math.min(dilationHeight, dilationWidth)) < 1
          || Math.min(paddingHeight, paddingWidth) < 0
          || groups < 1) {
        throw new GatunException(
            "conv2d: found stride "
                + strideHeight
                + " x "
                + strideWidth
                + ", padding "
                + paddingHeight
                + " x "
                + paddingWidth
                + ", dilation "
                + dilationHeight
                + " x "
                + dilationWidth
                + ", "
                + groups
                + " groups, expected at least 1 (padding: 0)");
      }
    }

    /** The same in both directions, without dilation, one group. */
    public static Geometry of(int stride, int padding) {
      return new Geometry(stride, stride, padding, padding, 1, 1, 1);
    }

    /** With another dilation in both directions. */
    public Geometry withDilation(int dilation) {
      return new Geometry(
          strideHeight, strideWidth, paddingHeight, paddingWidth, dilation, dilation, groups);
    }

    /** With another number of groups. */
    public Geometry withGroups(int count) {
      return new Geometry(
          strideHeight,
          strideWidth,
          paddingHeight,
          paddingWidth,
          dilationHeight,
          dilationWidth,
          count);
    }
  }

  private static final class Buffers implements AutoCloseable {
    final Workspace columns = new Workspace();
    final Workspace sums = new Workspace();

    @Override
    public void close() {
      columns.close();
      sums.close();
    }
  }

  /** One a group, all of the same shape. */
  private final Linear[] linears;

  private final Geometry geometry;
  private final long channels; // of x that a group sees
  private final long outputs; // of a group
  private final int kernelHeight;
  private final int kernelWidth;
  private final Pool<Buffers> buffers = new Pool<>(Buffers::new);

  Conv2d(Linear[] linears, Geometry geometry, long channels, int kernelHeight, int kernelWidth) {
    this.linears = linears;
    this.geometry = geometry;
    this.channels = channels;
    this.outputs = linears[0].outFeatures();
    this.kernelHeight = kernelHeight;
    this.kernelWidth = kernelWidth;
  }

  /**
   * Packs a quantized weight for a device. The weight's memory is not needed afterwards.
   *
   * @param weight of shape [N, C, height, width], C being the channels of one group; a format that
   *     does not store four dimensions is given them by {@link
   *     dev.gatun.layout.GenericOperations#reshape}
   * @param bias N plain numbers, or null
   * @param compute none of the static ones
   * @throws GatunException when the weight does not hold together or the device refuses it
   */
  public static Conv2d of(
      QuantizedTensor weight,
      @Nullable Tensor bias,
      Geometry geometry,
      Compute compute,
      Device device) {
    return Conv2dFactory.of(weight, bias, geometry, compute, device);
  }

  /** The same for a plain weight of F32, F16 or BF16. */
  public static Conv2d of(
      Tensor weight, @Nullable Tensor bias, Geometry geometry, Compute compute, Device device) {
    return Conv2dFactory.of(LinearFactory.plain(weight), bias, geometry, compute, device);
  }

  /** Channels of x. */
  public long inChannels() {
    return channels * linears.length;
  }

  /** Channels of y. */
  public long outChannels() {
    return outputs * linears.length;
  }

  /** How the window moves. */
  public Geometry geometry() {
    return geometry;
  }

  /** What the multiply is done in. */
  public Compute compute() {
    return linears[0].compute();
  }

  /** The name of the kernel that runs for an image of this size. */
  public String kernel(long height, long width) {
    return linears[0].kernel(rowsAtOnce(outHeight(height) * outWidth(width)));
  }

  /**
   * Rows of y for so many rows of x.
   *
   * @throws GatunException when the window is larger than the padded image
   */
  public long outHeight(long height) {
    return out(
        height,
        kernelHeight,
        geometry.strideHeight,
        geometry.paddingHeight,
        geometry.dilationHeight);
  }

  /** Columns of y for so many columns of x. */
  public long outWidth(long width) {
    return out(
        width, kernelWidth, geometry.strideWidth, geometry.paddingWidth, geometry.dilationWidth);
  }

  private static long out(long size, long kernel, long stride, long padding, long dilation) {
    long room = size + 2 * padding - dilation * (kernel - 1) - 1;
    if (size < 1 || size > Integer.MAX_VALUE || room < 0) {
      throw new GatunException(
          "conv2d: found an image of "
              + size
              + " with padding "
              + padding
              + ", expected at least the window of "
              + (dilation * (kernel - 1) + 1));
    }
    return room / stride + 1;
  }

  /**
   * y = x ∗ w + bias in floats.
   *
   * @param x [batch, C, height, width] floats, in native memory or a heap array
   * @param y [batch, N, outHeight, outWidth] floats; must not overlap x
   * @throws IndexOutOfBoundsException when x or y is too short
   */
  public void forward(MemorySegment x, long batch, long height, long width, MemorySegment y) {
    forward(x, Encoding.F32, batch, height, width, y, Encoding.F32, Epilogue.NONE, null);
  }

  /**
   * The same with other types of x and y (F32, F16, BF16), and an epilogue as {@link
   * Linear#forward} has it.
   *
   * @param other numbers of y's shape and type, y itself or apart from it; null when the epilogue
   *     combines nothing
   */
  public void forward(
      MemorySegment x,
      Encoding xType,
      long batch,
      long height,
      long width,
      MemorySegment y,
      Encoding yType,
      Epilogue epilogue,
      @Nullable MemorySegment other) {
    Objects.requireNonNull(epilogue, "epilogue");
    if (!xType.isPlain() || !yType.isPlain()) {
      throw new GatunException(
          "conv2d: found x of " + xType + " and y of " + yType + ", expected F32, F16 or BF16");
    }
    if (batch < 1) {
      throw new GatunException("conv2d: found a batch of " + batch + ", expected at least 1");
    }
    long rows = outHeight(height);
    long columns = outWidth(width);
    check("x", x, xType, batch, inChannels(), height, width);
    check("y", y, yType, batch, outChannels(), rows, columns);
    boolean combines = epilogue.combine() != Epilogue.Combine.NONE;
    if (combines != (other != null)) {
      throw new GatunException(
          "conv2d: found "
              + (combines ? "no " : "an ")
              + "'other' with combine "
              + epilogue.combine());
    }
    if (other != null) {
      check("other", other, yType, batch, outChannels(), rows, columns);
    }
    if (y.isReadOnly()) {
      throw new GatunException("conv2d: found a read-only y, expected one that can be written");
    }
    if (x.asOverlappingSlice(y).isPresent()) {
      throw new GatunException("conv2d: found x and y that overlap, expected separate memory");
    }
    Im2col image =
        new Im2col(geometry, kernelHeight, kernelWidth, height, width, columns, xType.bits() / 8);
    Buffers memory = buffers.take();
    try {
      long positions = rows * columns;
      long k = linears[0].inFeatures();
      long atOnce = rowsAtOnce(positions);
      MemorySegment matrix = memory.columns.atLeast(Math.max(1, atOnce * k * xType.bits() / 8));
      MemorySegment sums = memory.sums.atLeast(Math.max(1, atOnce * outputs * yType.bits() / 8));
      for (long b = 0; b < batch; b++) {
        for (int g = 0; g < linears.length; g++) {
          long from = (b * inChannels() + g * channels) * height * width;
          long to = (b * outChannels() + g * outputs) * positions;
          for (long first = 0; first < positions; first += atOnce) {
            int count = (int) Math.min(atOnce, positions - first);
            image.gather(x, from, channels, first, count, matrix);
            if (other != null) {
              Im2col.transpose(
                  other, to + first, positions, outputs, sums, 0, outputs, count, yType);
            }
            linears[g].forward(
                matrix,
                xType,
                k,
                count,
                sums,
                yType,
                outputs,
                epilogue,
                other == null ? null : sums,
                outputs);
            Im2col.transpose(sums, 0, outputs, count, y, to + first, positions, outputs, yType);
          }
        }
      }
    } finally {
      if (!buffers.give(memory)) {
        memory.close();
      }
    }
  }

  private long rowsAtOnce(long positions) {
    long k = Math.max(1, linears[0].inFeatures());
    return Math.clamp(AT_ONCE / k, Math.min(LEAST_ROWS, positions), positions);
  }

  private static void check(
      String what,
      MemorySegment memory,
      Encoding type,
      long batch,
      long channels,
      long height,
      long width) {
    long bytes;
    try {
      bytes =
          Math.multiplyExact(
              Math.multiplyExact(Math.multiplyExact(batch, channels), height),
              Math.multiplyExact(width, type.bits() / 8));
    } catch (ArithmeticException e) {
      throw new GatunException("conv2d: found a size of " + what + " that overflows", e);
    }
    if (memory.byteSize() < bytes) {
      throw new IndexOutOfBoundsException(
          "conv2d: found "
              + what
              + " of "
              + memory.byteSize()
              + " bytes, expected "
              + bytes
              + " for ["
              + batch
              + ", "
              + channels
              + ", "
              + height
              + ", "
              + width
              + "] of "
              + type);
    }
    if (!memory.isAccessibleBy(Thread.currentThread())) {
      throw new WrongThreadException(
          "conv2d: the memory of " + what + " belongs to another thread");
    }
  }

  /** Frees the packed weight. A second call does nothing. No forward may run meanwhile. */
  @Override
  public void close() {
    for (Linear linear : linears) {
      linear.close();
    }
    buffers.drain(Buffers::close);
  }
}
