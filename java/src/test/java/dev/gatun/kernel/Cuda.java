package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Compute;
import dev.gatun.bindings.NativeLibrary;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import org.junit.jupiter.api.Assumptions;

/**
 * Whether tests of libgatun_cuda and of a GPU run. With {@code -Dgatun.test.gpu=required} they fail
 * where there is none, instead of being skipped.
 */
public final class Cuda {
  private static final String LIBRARY = System.mapLibraryName("gatun_cuda");

  private Cuda() {}

  /** The relative error that {@link Compute} allows a GPU where it is more than the host's. */
  static Optional<Double> bound(Compute compute, long rows) {
    return switch (compute) {
      case F8_BLOCK -> Optional.of(4e-3);
      case F8_ROW -> rows > 16 ? Optional.of(5e-4) : Optional.empty();
      default -> Optional.empty();
    };
  }

  /** Whether there is a GPU; for {@code @EnabledIf}. */
  public static boolean hasGpu() {
    return gpus() > 0;
  }

  /** Whether there are two; for {@code @EnabledIf}. */
  public static boolean hasTwoGpus() {
    return gpus() > 1;
  }

  private static int gpus() {
    CudaReport report = CudaReport.get();
    if ("required".equals(System.getProperty("gatun.test.gpu"))) {
      assertThat(report.missing()).isEmpty();
    }
    return report.gpus().size();
  }

  /** Skips a test where there is no GPU. */
  public static void requireGpu() {
    Assumptions.assumeTrue(hasGpu(), () -> CudaReport.get().missing());
  }

  /** Skips a test where the library was not built; fails it where it was and is not found. */
  public static void requireLibrary() {
    Path place = Path.of(System.getProperty(NativeLibrary.CUDA_PATH_PROPERTY, ""));
    Path file = Files.isRegularFile(place) ? place : place.resolve(LIBRARY);
    Assumptions.assumeTrue(Files.exists(file), "libgatun_cuda was not built");
    NativeLibrary.Result found = NativeLibrary.loadCuda();
    assertThat(found).as(found.describe()).isInstanceOf(NativeLibrary.Loaded.class);
  }
}
