package dev.gatun.bench.cuda;

import com.sun.management.ThreadMXBean;
import dev.gatun.Compute;
import dev.gatun.CudaDevice;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.bench.Probe;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_cuda_packed;
import dev.gatun.bindings.gatun_h;
import dev.gatun.bindings.gatun_matrix;
import dev.gatun.checkpoint.DType;
import dev.gatun.kernel.CudaMemory;
import dev.gatun.kernel.CudaStream;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.List;

/**
 * What giving the GPU a product costs: {@code Linear.forward} on a stream beside {@code
 * gatun_cuda_linear} in a loop in C, on the same small weight, in turns. The median of many bursts,
 * each short enough to fit the driver's queue, so that nobody waits for the device.
 *
 * @param javaNanos of a call of {@code forward}
 * @param cNanos of the same launch from C
 * @param allocatedBytes of a call of {@code forward}, once warm
 */
record EnqueueCost(double javaNanos, double cNanos, double allocatedBytes) {
  private static final int N = 64;
  private static final int K = 256;
  private static final int BURST = 200;
  private static final int WARM = 200;
  private static final int ROUNDS = 300;
  private static final Compute COMPUTE = Compute.F32;

  static EnqueueCost measure(CudaDevice gpu) {
    try (Arena arena = Arena.ofConfined();
        Probe probe = Probe.open();
        CudaStream stream = gpu.stream();
        CudaMemory x = gpu.allocate(K * Float.BYTES);
        CudaMemory y = gpu.allocate(N * Float.BYTES);
        Linear layer = layer(gpu, arena);
        FromC c = new FromC(gpu, layerData(arena), arena)) {
      stream.fill(x, (byte) 0);
      ThreadMXBean threads = (ThreadMXBean) ManagementFactory.getThreadMXBean();
      double[] java = new double[ROUNDS];
      double[] fromC = new double[ROUNDS];
      long allocated = Long.MAX_VALUE;
      for (int round = -WARM; round < ROUNDS; round++) {
        long before = threads.getCurrentThreadAllocatedBytes();
        long start = System.nanoTime();
        for (int i = 0; i < BURST; i++) {
          layer.forward(stream, x, 1, y);
        }
        long nanos = System.nanoTime() - start;
        allocated = Math.min(allocated, threads.getCurrentThreadAllocatedBytes() - before);
        stream.synchronize();
        double cNanos = c.burst(probe, x, y);
        if (round >= 0) {
          java[round] = (double) nanos / BURST;
          fromC[round] = cNanos / BURST;
        }
      }
      Arrays.sort(java);
      Arrays.sort(fromC);
      return new EnqueueCost(java[ROUNDS / 2], fromC[ROUNDS / 2], (double) allocated / BURST);
    }
  }

  private static MemorySegment layerData(Arena arena) {
    return arena.allocate((long) N * K * Float.BYTES, 64);
  }

  private static Linear layer(CudaDevice gpu, Arena arena) {
    List<Long> shape = List.of((long) N, (long) K);
    return Linear.of(new Tensor("w", DType.F32, shape, layerData(arena)), null, COMPUTE, gpu);
  }

  /** The same weight, packed through the bindings alone. */
  private static final class FromC implements AutoCloseable {
    private final CudaDevice gpu;
    private final int device;
    private final CudaMemory codes;
    private final CudaMemory block;
    private final CudaMemory workspace;
    private final MemorySegment packed;
    private final long stream;

    FromC(CudaDevice gpu, MemorySegment floats, Arena arena) {
      this.gpu = gpu;
      this.device = gpu.gpu().index();
      MemorySegment out = arena.allocate(ValueLayout.JAVA_LONG);
      check(gatun_cuda_h.gatun_cuda_stream_create(device, out));
      this.stream = out.get(ValueLayout.JAVA_LONG, 0);
      this.codes = gpu.upload(floats);
      MemorySegment matrix = gatun_matrix.allocate(arena);
      gatun_matrix.n(matrix, N);
      gatun_matrix.k(matrix, K);
      gatun_matrix.encoding(matrix, Encoding.F32.id());
      gatun_matrix.codes(matrix, MemorySegment.ofAddress(codes.address()));
      gatun_matrix.codes_size(matrix, codes.byteSize());
      gatun_matrix.offset_sign(matrix, 1);
      gatun_matrix.block_rows(matrix, N);
      gatun_matrix.block_cols(matrix, K);
      gatun_matrix.global_scale(matrix, 1);
      gatun_matrix.arithmetic(matrix, Encoding.F32.id());
      gatun_matrix.result(matrix, Encoding.F32.id());
      check(gatun_cuda_h.gatun_cuda_packed_size(matrix, out));
      this.block = gpu.allocate(out.get(ValueLayout.JAVA_LONG, 0));
      this.packed = gatun_cuda_packed.allocate(arena);
      check(
          gatun_cuda_h.gatun_cuda_pack(
              device, matrix, block.address(), block.byteSize(), packed, stream));
      check(gatun_cuda_h.gatun_cuda_linear_workspace(packed, 1, COMPUTE.id(), out));
      this.workspace = gpu.allocate(Math.max(1, out.get(ValueLayout.JAVA_LONG, 0)));
    }

    double burst(Probe probe, CudaMemory x, CudaMemory y) {
      double nanos =
          probe.cudaLinear(
              gatun_cuda_h.gatun_cuda_linear$address(),
              BURST,
              device,
              packed,
              x.address(),
              K,
              1,
              y.address(),
              N,
              COMPUTE.id(),
              workspace.address(),
              workspace.byteSize(),
              stream);
      check(gatun_cuda_h.gatun_cuda_stream_synchronize(device, stream));
      if (nanos < 0) {
        throw new GatunException(
            "libgatun_cuda: " + gatun_cuda_h.gatun_cuda_last_error().getString(0));
      }
      return nanos;
    }

    private static void check(int status) {
      if (status != gatun_h.GATUN_OK()) {
        throw new GatunException(
            "libgatun_cuda: " + gatun_cuda_h.gatun_cuda_last_error().getString(0));
      }
    }

    @Override
    public void close() {
      gpu.synchronize();
      check(gatun_cuda_h.gatun_cuda_stream_destroy(device, stream));
      codes.close();
      block.close();
      workspace.close();
    }
  }
}
