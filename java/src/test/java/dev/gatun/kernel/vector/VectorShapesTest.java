package dev.gatun.kernel.vector;

import dev.gatun.kernel.Backend;
import dev.gatun.kernel.BackendShapes;
import net.jqwik.api.lifecycle.AfterContainer;

class VectorShapesTest extends BackendShapes {
  private static final VectorBackend BACKEND = new VectorBackend(2);

  @Override
  protected Backend backend() {
    return BACKEND;
  }

  @AfterContainer
  static void close() {
    BACKEND.close();
  }
}
