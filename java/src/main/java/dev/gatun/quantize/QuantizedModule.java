package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.Rounding;
import dev.gatun.Tensor;
import java.util.Optional;

/**
 * One module of a {@link QuantizedModel}. Immutable.
 *
 * @param name in the model: {@code encoder.layer.0.output.dense}
 * @param kind what it computes
 * @param types what its weight and its activations are quantized to
 * @param weight plain floats; empty when the module came from a checkpoint of codes
 * @param inputScale of x, 1 until calibrated
 * @param outputScale of y, 1 until calibrated
 */
public record QuantizedModule(
    String name,
    Kind kind,
    QuantizationMap.Module types,
    Optional<Tensor> weight,
    float inputScale,
    float outputScale) {
  /** Modules that quanto has quantized counterparts of. */
  public enum Kind {
    /** Input and output are rounded. */
    LINEAR,
    /** The output is rounded. */
    CONV2D,
    /** The output is rounded, the weight stays as it is. */
    LAYER_NORM
  }

  /** Whether its weight is stored as codes, or still quantized whenever it is used. */
  public boolean frozen() {
    return weight.isEmpty();
  }

  /** How x is rounded; empty where it is not. */
  public Optional<Rounding> inputRounding() {
    return kind == Kind.LINEAR ? rounding(inputScale) : Optional.empty();
  }

  /** How y is rounded; empty where it is not. */
  public Optional<Rounding> outputRounding() {
    return rounding(outputScale);
  }

  private Optional<Rounding> rounding(float scale) {
    Optional<Encoding> encoding = types.activationEncoding();
    return encoding.map(type -> new Rounding(type, scale, false));
  }

  QuantizedModule withScales(float input, float output) {
    return new QuantizedModule(name, kind, types, weight, input, output);
  }
}
