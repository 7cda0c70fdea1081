package dev.gatun.kernel.vector;

import dev.gatun.GatunException;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.BackendProvider;

/** The vector backend; loads without the incubator module and then says what is missing. */
public final class VectorProvider implements BackendProvider {
  private static final String MODULE = "jdk.incubator.vector";

  /** For {@link java.util.ServiceLoader}. */
  public VectorProvider() {}

  @Override
  public String name() {
    return "vector";
  }

  @Override
  public int rank() {
    return 10;
  }

  @Override
  public Availability probe() {
    return ModuleLayer.boot().findModule(MODULE).isPresent()
        ? new Availability(true, "pure Java on " + MODULE)
        : new Availability(false, "needs --add-modules " + MODULE);
  }

  @Override
  public Backend create(int threads) {
    Availability found = probe();
    if (!found.available()) {
      throw new GatunException("backend vector is not available: " + found.detail());
    }
    return new VectorBackend(threads);
  }
}
