package dev.gatun.kernel;

/** The reference backend, which runs everywhere. */
public final class ReferenceProvider implements BackendProvider {
  /** For {@link java.util.ServiceLoader}. */
  public ReferenceProvider() {}

  @Override
  public String name() {
    return "reference";
  }

  @Override
  public int rank() {
    return 0;
  }

  @Override
  public Availability probe() {
    return new Availability(true, "plain Java, one thread");
  }

  @Override
  public Backend create(int threads) {
    return new ReferenceBackend();
  }
}
