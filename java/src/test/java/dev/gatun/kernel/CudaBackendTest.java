package dev.gatun.kernel;

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
