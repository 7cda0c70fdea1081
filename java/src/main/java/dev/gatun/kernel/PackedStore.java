package dev.gatun.kernel;

import java.util.Optional;

/** Where a weight may lie packed already. */
@FunctionalInterface
public interface PackedStore {
  /** Holds nothing: every weight is packed anew. */
  PackedStore NONE = (backend, matrix) -> Optional.empty();

  /** What {@code backend.pack(matrix)} would make; empty when it has to be made. */
  Optional<PackedWeight> find(Backend backend, Matrix matrix);
}
