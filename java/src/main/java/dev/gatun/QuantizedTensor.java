package dev.gatun;

import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.codec.Numbers;
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

  /** The role of the part that is the scale of x in static activations: one number. */
  public static final String INPUT_SCALE = "input_scale";

  /** The role of the part that is the scale of y in static activations: one number. */
  public static final String OUTPUT_SCALE = "output_scale";

  private final String name;
  private final List<Long> shape;
  private final Layout layout;
  private final Map<String, Tensor> parts;
  private final Supplier<Matrix> source;
  private final Encoding dtype;
  private final Optional<StaticActivations> activations;
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
    this(name, shape, layout, parts, () -> matrix, dtype, Optional.empty());
    this.matrix = Objects.requireNonNull(matrix, "matrix");
  }

  private QuantizedTensor(
      String name,
      List<Long> shape,
      Layout layout,
      Map<String, Tensor> parts,
      Supplier<Matrix> source,
      Encoding dtype,
      Optional<StaticActivations> activations) {
    this.name = Objects.requireNonNull(name, "name");
    this.shape = List.copyOf(shape);
    this.layout = Objects.requireNonNull(layout, "layout");
    this.parts = Collections.unmodifiableMap(new LinkedHashMap<>(parts));
    this.source = Objects.requireNonNull(source, "source");
    this.dtype = Objects.requireNonNull(dtype, "dtype");
    this.activations = Objects.requireNonNull(activations, "activations");
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
    return new QuantizedTensor(name, shape, layout, parts, matrix, dtype, Optional.empty());
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
    return new QuantizedTensor(
        name, shape, layout, parts, () -> change.apply(matrix()), type, activations);
  }

  /** The same weight under another name. */
  public QuantizedTensor withName(String other) {
    return new QuantizedTensor(other, shape, layout, parts, this::matrix, dtype, activations);
  }

  /** The same weight in a shape of as many elements, made of other parts. */
  public QuantizedTensor with(
      List<Long> otherShape, Map<String, Tensor> otherParts, Matrix otherMatrix, Encoding type) {
    return new QuantizedTensor(
        name, otherShape, layout, otherParts, () -> otherMatrix, type, activations);
  }

  /** The same weight, whose library rounds activations so. */
  public QuantizedTensor withActivations(Optional<StaticActivations> how) {
    return new QuantizedTensor(name, shape, layout, parts, this::matrix, dtype, how);
  }

  /** How the format's own library rounds the layer's activations with scales from the file. */
  public Optional<StaticActivations> activations() {
    return activations;
  }

  /**
   * How x is rounded with compute types F8 and I8_STATIC: with {@link #INPUT_SCALE}, or 1 where the
   * file has none.
   *
   * @throws GatunException when the scale is not positive
   */
  public Optional<Rounding> inputRounding() {
    return activations.map(how -> rounding(how, INPUT_SCALE));
  }

  /** How y is rounded with them, before what is fused with the layer; empty where it is not. */
  public Optional<Rounding> outputRounding() {
    return activations.filter(StaticActivations::outputs).map(how -> rounding(how, OUTPUT_SCALE));
  }

  private Rounding rounding(StaticActivations how, String role) {
    Tensor scale = parts.get(role);
    float value = 1;
    if (scale != null) {
      Encoding type =
          scale
              .dtype()
              .encoding()
              .filter(Encoding::isPlain)
              .filter(plain -> scale.elements() == 1)
              .orElseThrow(
                  () ->
                      new GatunException(
                          scale.name()
                              + ": found "
                              + scale.dtype()
                              + " of shape "
                              + scale.shape()
                              + ", expected one F32, F16 or BF16 number"));
      value = Numbers.get(type, scale.data(), 0);
    }
    try {
      return new Rounding(how.encoding(), value, how.reciprocal());
    } catch (GatunException e) {
      throw new GatunException(name + "." + role + ": " + e.getMessage(), e);
    }
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
