package dev.gatun.layout;

import dev.gatun.Compute;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.Operation;
import java.util.Optional;

/**
 * What a layout's operation is bound to on one backend. It says what it cannot take and picks the
 * kernel. Since every layout describes itself as a {@link Matrix}, one entry point can serve all
 * layouts.
 */
public interface EntryPoint {
  /** The function that is called: {@code gatun_linear}, {@code vector.linear}. */
  String name();

  /** What it does. */
  Operation operation();

  /** The backend that it belongs to; it is a candidate on devices that run that one. */
  String backend();

  /**
   * Why it cannot run, in one clause; empty when it can.
   *
   * @param backend the device's
   * @param m rows of x; 0 where the operation has none
   * @param compute empty where the operation has none
   */
  default Optional<String> refuses(
      Backend backend, Matrix matrix, long m, Optional<Compute> compute) {
    return bind(backend).refuses(operation(), matrix, compute);
  }

  /** The name of the kernel that it picks. Asked only when it does not refuse. */
  default String kernel(Backend backend, Matrix matrix, long m, Optional<Compute> compute) {
    return bind(backend).kernel(operation(), matrix.encoding(), compute).orElse(name());
  }

  /** How that kernel does it, and why so; empty where there is nothing to say. */
  default Optional<String> how(Backend backend, Matrix matrix, long m, Optional<Compute> compute) {
    return bind(backend).how(operation(), matrix, compute, m);
  }

  /** Who runs the operation: the device's backend, unless the entry point brings its own. */
  default Backend bind(Backend backend) {
    return backend;
  }
}
