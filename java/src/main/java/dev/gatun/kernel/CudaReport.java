package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.bindings.NativeLibrary;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * What there is of CUDA on this machine.
 *
 * @param library the file of libgatun_cuda; empty when there is none that can be loaded
 * @param driver the CUDA version that the driver supports, times 1000; 0: no driver, or no library
 *     to ask it
 * @param runtime the CUDA version that the library was built with, times 1000; 0: no library
 * @param gpus every device
 * @param missing why there is no device, in one line; empty when there is one
 * @param dense whether dense products can go to cuBLASLt, and why not; empty without a device
 */
public record CudaReport(
    String library, int driver, int runtime, List<CudaGpu> gpus, String missing, String dense) {
  private static final class Once {
    static final CudaReport REPORT =
        switch (NativeLibrary.loadCuda()) {
          case NativeLibrary.Missing missing ->
              new CudaReport("", 0, 0, List.of(), missing.describe(), "");
          case NativeLibrary.Loaded loaded -> ask(loaded);
        };
  }

  /** Copies the list. */
  public CudaReport {
    gpus = List.copyOf(gpus);
  }

  /** Looks for the library and asks it, once in the life of the JVM. */
  public static CudaReport get() {
    return Once.REPORT;
  }

  /**
   * How {@code linear} would multiply {@code m} rows of x on a GPU like an H100, and why so, for
   * people; empty when there is no libgatun_cuda to ask, or it would not.
   */
  public static Optional<String> wouldRun(Matrix matrix, long m, Compute compute) {
    return get().library().isEmpty() || m < 1
        ? Optional.empty()
        : CudaTable.way(-1, matrix, m, compute);
  }

  private static CudaReport ask(NativeLibrary.Loaded loaded) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment driver = arena.allocate(ValueLayout.JAVA_INT);
      MemorySegment runtime = arena.allocate(ValueLayout.JAVA_INT);
      MemorySegment count = arena.allocate(ValueLayout.JAVA_INT);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_versions(driver, runtime));
      int status = gatun_cuda_h.gatun_cuda_device_count(count);
      boolean there = status == gatun_h.GATUN_OK();
      String missing = there ? "" : "no GPU: " + CudaCalls.detail(status);
      return new CudaReport(
          loaded.describe(),
          driver.get(ValueLayout.JAVA_INT, 0),
          runtime.get(ValueLayout.JAVA_INT, 0),
          CudaGpu.all(),
          missing,
          there ? denseProducts() : "");
    }
  }

  private static String denseProducts() {
    int status = gatun_cuda_h.gatun_cuda_blas_check();
    return status == gatun_h.GATUN_OK() ? "cuBLASLt is there" : CudaCalls.detail(status);
  }

  /** {@code 13.0} for 13000. */
  public static String version(int number) {
    return number == 0
        ? "none"
        : String.format(Locale.ROOT, "%d.%d", number / 1000, number % 1000 / 10);
  }

  /** One line for people. */
  String describe() {
    return missing.isEmpty()
        ? gpus
            + ", CUDA "
            + version(runtime)
            + ", driver for "
            + version(driver)
            + ", libgatun_cuda at "
            + library
        : missing;
  }
}
