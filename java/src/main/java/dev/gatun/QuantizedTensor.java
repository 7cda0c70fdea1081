package dev.gatun;

import dev.gatun.kernel.Matrix;
import dev.gatun.layout.Layout;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Supplier;
import java.util.function.UnaryOperator;
import org.jspecify.annotations.Nullable;

/**
 * A quantized weight: codes, the {@link Layout} that says how they are read, and the parameters
 * that the layout needs. Immutable.
 */
public final class QuantizedTensor {
  /**
   * The role of the part that x is multiplied by, element by element, before the weight is applied:
   * K numbers (ComfyUI's {@code pre_quant_scale}, torchao's {@code act_pre_scale}). {@link Linear}
   * does so.
   */
  public static final String INPUT_MULTIPLIER = "input_multiplier";

  private final String name;
  private final List<Long> shape;
  private final Layout layout;
  private final Map<String, Tensor> parts;
  private final Supplier<Matrix> source;
  private final Encoding dtype;
  private volatile @Nullable Matrix matrix;

  /**
   * A weight.
   *
   * @param name the layer's plain name without {@code .weight}: {@code model.layers.0.mlp.up_proj}
   * @param shape of the weight as the model sees it: [N, K], or more dimensions for convolutions
   * @param layout how the parts make up numbers
   * @param parts the checkpoint's tensors by the role that the layout gives them ("codes",
   *     "scales", …)
   * @param matrix the same as one N × K matrix for the kernels; a shape of more than two dimensions
   *     is [N, product of the rest]
   * @param dtype what the format's own library dequantizes to
   */
  public QuantizedTensor(
      String name,
      List<Long> shape,
      Layout layout,
      Map<String, Tensor> parts,
      Matrix matrix,
      Encoding dtype) {
    this(name, shape, layout, parts, () -> matrix, dtype);
    this.matrix = Objects.requireNonNull(matrix, "matrix");
  }

  private QuantizedTensor(
      String name,
      List<Long> shape,
      Layout layout,
      Map<String, Tensor> parts,
      Supplier<Matrix> source,
      Encoding dtype) {
    this.name = Objects.requireNonNull(name, "name");
    this.shape = List.copyOf(shape);
    this.layout = Objects.requireNonNull(layout, "layout");
    this.parts = Collections.unmodifiableMap(new LinkedHashMap<>(parts));
    this.source = Objects.requireNonNull(source, "source");
    this.dtype = Objects.requireNonNull(dtype, "dtype");
  }

  /**
   * A weight whose matrix is made when it is first asked for: small parts such as packed zero
   * points may have to be unpacked, and opening a file touches no data.
   */
  public static QuantizedTensor lazy(
      String name,
      List<Long> shape,
      Layout layout,
      Map<String, Tensor> parts,
      Supplier<Matrix> matrix,
      Encoding dtype) {
    return new QuantizedTensor(name, shape, layout, parts, matrix, dtype);
  }

  /** The layer's plain name without {@code .weight}. */
  public String name() {
    return name;
  }

  /** The weight's shape as the model sees it, [N, K] or more dimensions. */
  public List<Long> shape() {
    return shape;
  }

  /** How the parts make up numbers. */
  public Layout layout() {
    return layout;
  }

  /** The checkpoint's tensors by role. */
  public Map<String, Tensor> parts() {
    return parts;
  }

  /** The weight as one N × K matrix for the kernels. */
  public Matrix matrix() {
    Matrix known = matrix;
    if (known == null) {
      synchronized (source) {
        known = matrix;
        if (known == null) {
          known = Objects.requireNonNull(source.get(), "matrix");
          matrix = known;
        }
      }
    }
    return known;
  }

  /** What the format's own library dequantizes to. */
  public Encoding dtype() {
    return dtype;
  }

  /** The same weight, its matrix seen differently; made when it is first asked for. */
  public QuantizedTensor withMatrix(UnaryOperator<Matrix> change, Encoding type) {
    return lazy(name, shape, layout, parts, () -> change.apply(matrix()), type);
  }

  /** The same weight under another name. */
  public QuantizedTensor withName(String other) {
    return lazy(other, shape, layout, parts, this::matrix, dtype);
  }

  /** What x is multiplied by, element by element, before the weight is applied: K numbers. */
  public Optional<Tensor> inputMultiplier() {
    return part(INPUT_MULTIPLIER);
  }

  /** Weights. */
  public long elements() {
    return shape.stream().reduce(1L, Math::multiplyExact);
  }

  /** Bytes of all parts. */
  public long byteSize() {
    return parts.values().stream().mapToLong(t -> t.data().byteSize()).sum();
  }

  /** Bits per weight, scales and all. */
  public double bitsPerWeight() {
    return 8.0 * byteSize() / Math.max(1, elements());
  }

  /** The part with this role. */
  public Optional<Tensor> part(String role) {
    return Optional.ofNullable(parts.get(role));
  }

  @Override
  public String toString() {
    return name + " " + shape + " " + layout.name();
  }
}
