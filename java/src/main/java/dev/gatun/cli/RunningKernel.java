package dev.gatun.cli;

import dev.gatun.Device;
import dev.gatun.Linear;

/**
 * What a linear layer runs on a device: a slow path must not be silent.
 *
 * @param kernel its name
 * @param backend whose it is
 */
record RunningKernel(String kernel, String backend) {
  /** The kernel for so many rows of x. */
  static RunningKernel of(Linear linear, long m, Device device) {
    String kernel = linear.kernel(m);
    String backend =
        device.order().stream()
            .filter(name -> device.refuses(name).isEmpty())
            .filter(
                name ->
                    device.backend(name).kernels().stream().anyMatch(k -> k.name().equals(kernel)))
            .findFirst()
            .orElse(device.name());
    return new RunningKernel(kernel, backend);
  }
}
