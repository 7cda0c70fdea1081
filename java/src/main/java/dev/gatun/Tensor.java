package dev.gatun;

import dev.gatun.checkpoint.DType;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Objects;

/**
 * A named tensor of a checkpoint: plain numbers or one part of a quantized weight.
 *
 * @param name as it stands in the file
 * @param dtype the container's type
 * @param shape sizes, outermost first; empty for a scalar
 * @param data the bytes, little-endian, row-major; a read-only slice of the mapped file or any
 *     other memory; not necessarily aligned
 */
public record Tensor(String name, DType dtype, List<Long> shape, MemorySegment data) {
  /** Copies the shape. */
  public Tensor {
    Objects.requireNonNull(name, "name");
    Objects.requireNonNull(dtype, "dtype");
    Objects.requireNonNull(data, "data");
    shape = List.copyOf(shape);
  }

  /** Product of the sizes. */
  public long elements() {
    return shape.stream().reduce(1L, Math::multiplyExact);
  }
}
