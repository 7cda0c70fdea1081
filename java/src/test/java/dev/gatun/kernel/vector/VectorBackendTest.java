package dev.gatun.kernel.vector;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Compute;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.BackendParity;
import dev.gatun.kernel.ReferenceBackend;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;

class VectorBackendTest extends BackendParity {
  private final VectorBackend backend = new VectorBackend(3);

  @Override
  protected Backend backend() {
    return backend;
  }

  @Override
  protected String isa() {
    return "vector";
  }

  @AfterAll
  void close() {
    backend.close();
  }

  @Test
  void hasAKernelForAllThatTheDefinitionHasButFloatsOf8Bits() {
    assertThat(backend.kernels())
        .hasSameSizeAs(
            new ReferenceBackend()
                .kernels().stream()
                    .filter(k -> k.compute().filter(Compute::isFloats8).isEmpty())
                    .toList());
  }
}
