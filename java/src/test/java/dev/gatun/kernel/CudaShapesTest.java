package dev.gatun.kernel;

import dev.gatun.Compute;
import net.jqwik.api.lifecycle.AddLifecycleHook;
import net.jqwik.api.lifecycle.AfterContainer;
import net.jqwik.api.lifecycle.BeforeContainer;
import net.jqwik.api.lifecycle.LifecycleContext;
import net.jqwik.api.lifecycle.SkipExecutionHook;
import org.jspecify.annotations.Nullable;

@AddLifecycleHook(CudaShapesTest.SkippedWithoutGpu.class)
class CudaShapesTest extends BackendShapes {
  static class SkippedWithoutGpu implements SkipExecutionHook {
    @Override
    public SkipResult shouldBeSkipped(LifecycleContext context) {
      return Cuda.hasGpu() ? SkipResult.doNotSkip() : SkipResult.skip("no GPU");
    }
  }

  private static @Nullable CudaBackend backend;

  @BeforeContainer
  static void open() {
    if (Cuda.hasGpu()) {
      backend = (CudaBackend) new CudaProvider().create(1);
    }
  }

  @AfterContainer
  static void close() {
    if (backend != null) {
      backend.close();
    }
  }

  @Override
  protected double bound(Compute compute, long rows, long k) {
    return Cuda.bound(compute, rows).orElseGet(() -> super.bound(compute, rows, k));
  }

  @Override
  protected Backend backend() {
    if (backend == null) {
      throw new IllegalStateException("no GPU");
    }
    return backend;
  }
}
