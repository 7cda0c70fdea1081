package dev.gatun.quantize;

import dev.gatun.Compute;
import dev.gatun.ComputePlan;
import dev.gatun.Tensor;
import dev.gatun.kernel.Scaling;
import dev.gatun.quantize.config.QuantizationConfig;
import java.util.Map;
import java.util.Optional;

/** Which layers of a checkpoint are quantized, and to which format each one. */
public interface QuantizePlan {
  /**
   * All that the plan depends on, as text: two runs with equal descriptions over the same files
   * write the same bytes.
   */
  String description();

  /**
   * The format of a layer, one of {@link Quantizer#formats()}; empty when it stays as it is.
   *
   * @param layer plain name
   * @param weight two-dimensional, or of four dimensions where {@link #convolutions} says so; of a
   *     float type
   */
  Optional<String> format(String layer, Tensor weight);

  /** How scales and codes are chosen; as the formats' own libraries do it, unless it is said. */
  default Scaling scaling() {
    return Scaling.DEFAULT;
  }

  /** Whether a format that refuses {@link #scaling} chooses scales its own way. */
  default boolean isTolerant() {
    return false;
  }

  /** The same layers in the same formats, with scales and codes chosen in another way. */
  default QuantizePlan with(Scaling scaling) {
    return new Plans.Scaled(this, scaling);
  }

  /** What each layer is multiplied in, by those who open the checkpoint without saying so. */
  default ComputePlan computePlan() {
    return ComputePlan.of(Compute.F32);
  }

  /** The same, with a compute type for each layer. */
  default QuantizePlan with(ComputePlan computePlan) {
    return new Plans.Computed(this, computePlan);
  }

  /** Whether weights of four dimensions are layers too. */
  default boolean convolutions() {
    return false;
  }

  /** The same, with convolutions among the layers: those of the formats that hold them. */
  default QuantizePlan withConvolutions() {
    return new Plans.Convolved(this);
  }

  /** One format for every layer that a filter lets through. */
  static QuantizePlan of(String format, NameFilter filter) {
    return new Plans.OneFormat(format, filter);
  }

  /** A format for each layer by name; layers that are not named stay as they are. */
  static QuantizePlan of(Map<String, String> formats) {
    return new Plans.ByName(Map.copyOf(formats));
  }

  /**
   * What a configuration says.
   *
   * @param filter what it says is narrowed by; without inclusions, nothing but the exclusions count
   */
  static QuantizePlan of(QuantizationConfig config, NameFilter filter) {
    return new Plans.Configured(config, filter);
  }
}
