package dev.gatun.bench.cuda;

import dev.gatun.Compute;
import dev.gatun.CudaDevice;
import dev.gatun.Encoding;
import dev.gatun.kernel.CudaBackend;
import dev.gatun.kernel.CudaMemory;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.LinearCall;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.PackedWeight;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;

/**
 * Products of 8-bit codes, x quantized before: what {@code bench/cuda/bench.py} times beside
 * PyTorch's, under the same names.
 */
enum GpuCodes {
  F8_ROWS("f8 rows (cuBLASLt)", GpuWeight.E4M3, Compute.F8_ROW, false),
  F8_BIAS("f8 rows (own, bias)", GpuWeight.E4M3, Compute.F8_ROW, true),
  F8_BLOCKS("f8 128 blocks", GpuWeight.E4M3, Compute.F8_BLOCK, false),
  I8_ROWS("i8 rows, fused scales", GpuWeight.I8, Compute.I8, false);

  /** Weights in rotation: each alone leaves little room in the last cache. */
  private static final int COPIES = 3;

  private static final long BLOCK = 128;

  private final String label;
  private final GpuWeight weight;
  private final Compute compute;
  private final boolean biased;

  GpuCodes(String label, GpuWeight weight, Compute compute, boolean biased) {
    this.label = label;
    this.weight = weight;
    this.compute = compute;
    this.biased = biased;
  }

  String label() {
    return label;
  }

  /** Microseconds of one product of M × K codes by N × K codes, y in BF16. */
  double microseconds(CudaDevice gpu, GpuTimer timer, int m, int n, int k) {
    CudaBackend cuda = gpu.cuda();
    boolean blocks = compute == Compute.F8_BLOCK;
    long across = Math.ceilDiv(k, BLOCK);
    Encoding type = compute == Compute.I8 ? Encoding.I8 : Encoding.F8_E4M3;
    List<PackedWeight> weights = new ArrayList<>();
    try (Arena arena = Arena.ofShared();
        CudaMemory x = gpu.upload(weight.random(m, k, arena, 3).codes());
        CudaMemory scales = gpu.upload(GpuWeight.scales(m * (blocks ? across : 1), arena));
        CudaMemory bias = gpu.upload(GpuWeight.scales(n, arena));
        CudaMemory y = gpu.allocate((long) m * n * Short.BYTES)) {
      Matrix matrix = weight.random(n, k, arena, 4);
      if (blocks) {
        Matrix.Values tiles =
            new Matrix.Values(
                Encoding.F32, GpuWeight.scales(Math.ceilDiv(n, BLOCK) * across, arena));
        matrix =
            matrix.toBuilder()
                .granularity(new Granularity.Tile(BLOCK, BLOCK, across, 1))
                .scales(tiles)
                .build();
      }
      for (int i = 0; i < COPIES; i++) {
        weights.add(cuda.pack(matrix));
      }
      LinearCall<CudaMemory> call =
          LinearCall.of(x, type, k, m, y, Encoding.BF16, n)
              .codes(scales, blocks ? across : 1, blocks ? 1 : 0)
              .bias(biased ? bias : null)
              .compute(compute);
      List<Runnable> calls = new ArrayList<>();
      for (PackedWeight w : weights) {
        calls.add(() -> cuda.linear(timer.stream(), w, call));
      }
      return timer.microseconds(calls);
    } finally {
      weights.forEach(PackedWeight::close);
    }
  }
}
