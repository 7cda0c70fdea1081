package dev.gatun.kernel;

/**
 * How a backend is found: through {@link java.util.ServiceLoader}. The provider itself must load
 * everywhere; the classes that need a module, a library or a device are touched by {@link #create}
 * only, after {@link #probe} said that they can be.
 */
public interface BackendProvider {
  /**
   * Whether a backend can run here.
   *
   * @param available whether {@link BackendProvider#create} will give one
   * @param detail one line: what was found, or what is missing and where it was looked for
   */
  record Availability(boolean available, String detail) {}

  /** {@code reference}, {@code vector}, {@code native} or {@code cuda}. */
  String name();

  /** The highest is preferred: reference 0, vector 10, native 20, cuda 30. */
  int rank();

  /** Whether its absence is usual, and worth no word where something else runs instead. */
  default boolean isExtra() {
    return false;
  }

  /** Whether the backend can run here; never throws. */
  Availability probe();

  /**
   * The backend.
   *
   * @param threads how many threads an operation may use, the caller's included; at least 1
   * @throws dev.gatun.GatunException when {@link #probe} said that it is not available
   */
  Backend create(int threads);
}
