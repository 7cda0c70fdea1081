package dev.gatun;

import dev.gatun.kernel.Matrix;
import dev.gatun.layout.Layout;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;

/**
 * A quantized weight: codes, the {@link Layout} that says how they are read, and the parameters
 * that the layout needs.
 *
 * @param name the layer's plain name without {@code .weight}: {@code model.layers.0.mlp.up_proj}
 * @param shape of the weight as the model sees it: [N, K], or more dimensions for convolutions
 * @param layout how the parts make up numbers
 * @param parts the checkpoint's tensors by the role that the layout gives them ("codes", "scales",
 *     …)
 * @param matrix the same as one N × K matrix for the kernels; a shape of more than two dimensions
 *     is [N, product of the rest]
 * @param dtype what the format's own library dequantizes to
 */
public record QuantizedTensor(
    String name,
    List<Long> shape,
    Layout layout,
    Map<String, Tensor> parts,
    Matrix matrix,
    Encoding dtype) {

  /** Copies shape and parts. */
  public QuantizedTensor {
    Objects.requireNonNull(name, "name");
    Objects.requireNonNull(layout, "layout");
    Objects.requireNonNull(matrix, "matrix");
    Objects.requireNonNull(dtype, "dtype");
    shape = List.copyOf(shape);
    parts = Collections.unmodifiableMap(new LinkedHashMap<>(parts));
  }

  /** Bytes of all parts. */
  public long byteSize() {
    return parts.values().stream().mapToLong(t -> t.data().byteSize()).sum();
  }

  /** Bits per weight, scales and all. */
  public double bitsPerWeight() {
    return 8.0 * byteSize() / Math.max(1, matrix.n() * matrix.k());
  }

  /** The part with this role. */
  public Optional<Tensor> part(String role) {
    return Optional.ofNullable(parts.get(role));
  }
}
