package dev.gatun;

import dev.gatun.kernel.BackendProvider;
import dev.gatun.kernel.CudaBackend;
import dev.gatun.kernel.CudaGpu;
import dev.gatun.kernel.CudaMemory;
import dev.gatun.kernel.CudaReport;
import dev.gatun.kernel.CudaStream;
import java.lang.foreign.MemorySegment;
import java.util.Set;

/**
 * A GPU. Layers that are packed for it multiply host memory as on every device, and beyond that
 * memory of their own device, on a {@link CudaStream}:
 *
 * <pre>{@code
 * try (CudaDevice gpu = Device.cuda(0);
 *     CudaStream stream = gpu.stream();
 *     CudaMemory x = gpu.upload(input);
 *     CudaMemory y = gpu.allocate(m * layer.outFeatures() * Float.BYTES)) {
 *   layer.forward(stream, x, m, y); // returns at once
 *   stream.download(y, output);
 * }
 * }</pre>
 *
 * <p>Close order does not matter on the GPU: memory is given back once the work that needs it is
 * done, and the GPU is let go when the device and everything made for it are closed.
 */
public final class CudaDevice extends Device {
  private final CudaBackend cuda;

  CudaDevice(BackendProvider provider, int threads, boolean strict, Set<String> allowed) {
    super(provider, threads, strict, allowed);
    this.cuda = (CudaBackend) backend();
  }

  /** How many GPUs there are; 0 without a driver or libgatun_cuda. */
  public static int count() {
    return CudaReport.get().gpus().size();
  }

  /** What is known of the GPU. */
  public CudaGpu gpu() {
    return cuda.gpu();
  }

  /** Its operations, also those on its own memory. */
  public CudaBackend cuda() {
    return cuda;
  }

  /** A stream of its own. */
  public CudaStream stream() {
    return cuda.stream();
  }

  /**
   * Memory on the GPU, aligned to 256 bytes, with whatever lies there.
   *
   * @throws CudaOutOfMemoryException when the GPU has not as much; it says bytes asked and free
   */
  public CudaMemory allocate(long bytes) {
    return cuda.allocate(bytes);
  }

  /** A copy of bytes of the host, such as a tensor of a mapped checkpoint. */
  public CudaMemory upload(MemorySegment bytes) {
    return cuda.upload(bytes);
  }

  /** Waits for all that every stream was given. */
  public void synchronize() {
    cuda.synchronize();
  }

  @Override
  public String toString() {
    return name() + " (device " + gpu().index() + ", " + gpu() + ")";
  }
}
