package dev.gatun.kernel.vector;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Backend.Kernel;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.Operation;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/** The table of kernels: one for each that the definition has. */
final class Kernels {
  private static final String ISA = "vector";

  private final Backend definition;
  private final List<Kernel> table;
  private final Map<Encoding, Map<Compute, String>> linear = new EnumMap<>(Encoding.class);

  Kernels(Backend definition) {
    this.definition = definition;
    table =
        definition.kernels().stream()
            .filter(kernel -> kernel.compute().filter(Compute::isFloats8).isEmpty())
            .map(Kernels::ours)
            .toList();
    for (Kernel kernel : table) {
      if (kernel.operation() == Operation.LINEAR) {
        linear
            .computeIfAbsent(kernel.encoding(), e -> new EnumMap<>(Compute.class))
            .put(kernel.compute().orElseThrow(), kernel.name());
      }
    }
  }

  private static Kernel ours(Kernel k) {
    String stem = k.name().substring(0, k.name().lastIndexOf("__"));
    return new Kernel(k.operation(), k.encoding(), k.compute(), ISA, stem + "__" + ISA);
  }

  List<Kernel> table() {
    return table;
  }

  Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute) {
    return compute.filter(Compute::isFloats8).isPresent()
        ? Optional.of("no kernel for compute " + compute.get() + ", which GPUs have")
        : definition.refuses(operation, matrix, compute);
  }

  /** The kernel that multiplies; allocates nothing. */
  String linear(Encoding encoding, Compute compute) {
    return linear.getOrDefault(encoding, Map.of()).getOrDefault(compute, "none");
  }

  /** The kernel of an operation that has no compute type. */
  String name(Operation operation, Encoding encoding) {
    for (Kernel kernel : table) {
      if (kernel.operation() == operation && kernel.encoding() == encoding) {
        return kernel.name();
      }
    }
    return "none";
  }
}
