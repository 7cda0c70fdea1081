package dev.gatun.kernel;

import dev.gatun.bindings.gatun_cuda_device;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/**
 * One GPU of this machine.
 *
 * @param index by which CUDA's runtime knows it
 * @param name as its driver tells it
 * @param major of its compute capability
 * @param minor of its compute capability
 * @param multiprocessors how many it has
 * @param l2Bytes of its last cache
 * @param memoryBytes in all
 */
public record CudaGpu(
    int index,
    String name,
    int major,
    int minor,
    int multiprocessors,
    long l2Bytes,
    long memoryBytes) {

  /** Those that libgatun_cuda, which must be loaded, can use; none without a driver. */
  static List<CudaGpu> all() {
    List<CudaGpu> gpus = new ArrayList<>();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment count = arena.allocate(ValueLayout.JAVA_INT);
      if (gatun_cuda_h.gatun_cuda_device_count(count) != gatun_h.GATUN_OK()) {
        return gpus;
      }
      for (int i = 0; i < count.get(ValueLayout.JAVA_INT, 0); i++) {
        gpus.add(at(i));
      }
    }
    return gpus;
  }

  static CudaGpu at(int index) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment d = gatun_cuda_device.allocate(arena);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_device_at(index, d));
      return new CudaGpu(
          index,
          gatun_cuda_device.name(d).getString(0),
          gatun_cuda_device.major(d),
          gatun_cuda_device.minor(d),
          gatun_cuda_device.multiprocessors(d),
          gatun_cuda_device.l2_bytes(d),
          gatun_cuda_device.memory_bytes(d));
    }
  }

  /** Bytes free at this moment. */
  public long freeBytes() {
    return CudaContext.memory(index)[0];
  }

  @Override
  public String toString() {
    return name + " (sm_" + major + minor + ")";
  }
}
