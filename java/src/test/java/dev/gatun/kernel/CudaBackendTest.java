package dev.gatun.kernel;

import dev.gatun.Compute;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.condition.EnabledIf;

/** The GPU is one more backend. */
@EnabledIf(value = "dev.gatun.kernel.Cuda#hasGpu", disabledReason = "no GPU")
class CudaBackendTest extends BackendParity {
  private final CudaBackend backend = (CudaBackend) new CudaProvider().create(1);

  @Override
  protected Backend backend() {
    return backend;
  }

  @Override
  protected String isa() {
    return "sm\\d+";
  }

  /** Every way that rows of x go there. */
  @Override
  protected List<Long> rows() {
    return List.of(1L, 2L, 5L, 13L, 33L, 130L);
  }

  @Override
  protected double bound(Compute compute, long rows, long k) {
    return Cuda.bound(compute, rows).orElseGet(() -> super.bound(compute, rows, k));
  }

  @Override
  protected boolean infinityMayBeNan(Compute compute) {
    return compute.isIntegers() || compute.isFloats8();
  }

  /** A weight whose parts the tiles do not keep cannot be had back from them. */
  @Override
  protected boolean isKept(RuntimeException refusal) {
    return !String.valueOf(refusal.getMessage()).contains("whose parts the tiles do not keep");
  }

  @AfterAll
  void close() {
    backend.close();
  }
}
