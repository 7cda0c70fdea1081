package dev.gatun;

import dev.gatun.kernel.CudaMemory;
import dev.gatun.kernel.CudaStream;
import dev.gatun.kernel.PackedStore;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * One linear layer, packed for one device: y = x · Wᵀ + b. Thread-safe; {@code forward} allocates
 * nothing.
 */
public interface Linear extends AutoCloseable {
  /**
   * Packs a quantized weight for a device. The weight's memory is not needed afterwards.
   *
   * <p>When no kernel of the device takes the weight with this compute type, it is dequantized to
   * floats and multiplied as those with compute type F32, and one line at level INFO says so; a
   * device from {@link Device#require} refuses instead.
   *
   * @param bias N plain numbers, or null
   * @throws GatunException when the weight does not hold together or the device refuses it
   */
  static Linear of(QuantizedTensor weight, @Nullable Tensor bias, Compute compute, Device device) {
    return of(weight, bias, compute, device, PackedStore.NONE);
  }

  /**
   * The same for a weight that may lie packed already.
   *
   * @param store where it is looked for first
   */
  static Linear of(
      QuantizedTensor weight,
      @Nullable Tensor bias,
      Compute compute,
      Device device,
      PackedStore store) {
    return LinearFactory.of(weight, bias, compute, device, store);
  }

  /**
   * Packs a plain weight of F32, F16 or BF16 for a device.
   *
   * @param weight [N, K], or more dimensions: [N, product of the rest]
   * @param bias N plain numbers, or null
   */
  static Linear of(Tensor weight, @Nullable Tensor bias, Compute compute, Device device) {
    return of(LinearFactory.plain(weight), bias, compute, device);
  }

  /** N: output features. */
  long outFeatures();

  /** K: input features. */
  long inFeatures();

  /** The name of the kernel that runs for this many rows. */
  String kernel(long m);

  /** What the multiply is done in. */
  Compute compute();

  /**
   * y = x · Wᵀ + b in floats.
   *
   * @param x M × K floats, row-major, in native memory or a heap array
   * @param m rows of x, at least 1
   * @param y M × N floats, row-major; must not overlap x
   * @throws IndexOutOfBoundsException when x or y is too short
   * @throws IllegalStateException when this layer is closed
   */
  default void forward(MemorySegment x, long m, MemorySegment y) {
    forward(x, Encoding.F32, inFeatures(), m, y, Encoding.F32, outFeatures());
  }

  /**
   * The same with other types of x and y (F32, F16, BF16) and rows {@code ldx} and {@code ldy}
   * elements apart.
   */
  default void forward(
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy) {
    forward(x, xType, ldx, m, y, yType, ldy, Epilogue.NONE, null, 0);
  }

  /**
   * y = combine(activation(x · Wᵀ + b), other) in floats.
   *
   * @param other M × N floats: y itself or memory that does not overlap it; null when the epilogue
   *     combines nothing
   * @throws GatunException when other is missing, not wanted, or overlaps y partly
   */
  default void forward(
      MemorySegment x, long m, MemorySegment y, Epilogue epilogue, @Nullable MemorySegment other) {
    long n = outFeatures();
    forward(x, Encoding.F32, inFeatures(), m, y, Encoding.F32, n, epilogue, other, n);
  }

  /**
   * The same with other types of x and y (F32, F16, BF16) and rows {@code ldx}, {@code ldy} and
   * {@code ldOther} elements apart; {@code other} is of y's type.
   */
  void forward(
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      long ldOther);

  /**
   * y = x · Wᵀ + b in floats on a GPU's memory. Gives the work to the stream and returns before it
   * is done.
   *
   * @param stream of the layer's device
   * @param x M × K floats, row-major
   * @param m rows of x, at least 1
   * @param y M × N floats, row-major; must not overlap x
   * @throws GatunException when this layer is not on a GPU, or not on the stream's
   * @throws IndexOutOfBoundsException when x or y is too short
   * @throws IllegalStateException when this layer, the stream or memory is closed
   */
  default void forward(CudaStream stream, CudaMemory x, long m, CudaMemory y) {
    long n = outFeatures();
    long k = inFeatures();
    forward(stream, x, Encoding.F32, k, m, y, Encoding.F32, n, Epilogue.NONE, null, 0);
  }

  /**
   * The same with other types of x and y (F32, F16, BF16), rows {@code ldx}, {@code ldy} and {@code
   * ldOther} elements apart, and an epilogue.
   *
   * @param other M × N numbers of y's type: y itself or memory that does not overlap it; null when
   *     the epilogue combines nothing
   */
  default void forward(
      CudaStream stream,
      CudaMemory x,
      Encoding xType,
      long ldx,
      long m,
      CudaMemory y,
      Encoding yType,
      long ldy,
      Epilogue epilogue,
      @Nullable CudaMemory other,
      long ldOther) {
    throw new GatunException(
        "linear: found a stream for a layer that does not run on a GPU's own memory, expected one"
            + " packed for a CudaDevice with a kernel for it");
  }

  /** Frees the packed weight. A second call does nothing. */
  @Override
  void close();
}
