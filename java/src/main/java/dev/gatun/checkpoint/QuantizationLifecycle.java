package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;

/**
 * The steps around one weight's quantization, in the order in which {@code
 * dev.gatun.quantize.Quantizer} takes them; they are those of diffusers' {@code
 * DiffusersQuantizer}. The step in the middle, {@code create_quantized_param}, is {@link
 * LayerWriter#quantize}; what follows when all weights are there, {@code postprocess_model}, is
 * {@link LayerWriter#metadata}, {@link LayerWriter#sidecars} and {@link LayerWriter#once}.
 *
 * <p>Two of its steps have no hook here, since no format differs in them: {@code dequantize} is
 * {@code dev.gatun.quantize.Dequantizer}, and where a layer is placed ({@code update_device_map})
 * is said when it is opened, by the {@link dev.gatun.Device} that is given for it.
 */
public interface QuantizationLifecycle {
  /**
   * Whether this weight can be quantized: two dimensions, a float type, a shape the layout can
   * take.
   */
  boolean accepts(Tensor weight);

  /**
   * {@code validate_environment}: refuses a backend that cannot do what the format needs.
   *
   * @throws GatunException when it cannot, with the reason
   */
  default void validateEnvironment(Backend backend) {}

  /**
   * {@code check_if_quantized_param}: whether a tensor of the checkpoint becomes a quantized
   * weight. Only {@code *.weight} does.
   */
  default boolean isQuantized(Tensor tensor) {
    return tensor.name().endsWith(Parts.WEIGHT) && tensor.shape().size() == 2 && accepts(tensor);
  }

  /**
   * {@code check_quantized_param_shape}: refuses a weight of a shape or type that the layout cannot
   * take.
   *
   * @throws GatunException that names the tensor, what was found and what was expected
   */
  default void checkShape(Tensor weight) {
    if (!accepts(weight)) {
      throw new GatunException(
          "tensor "
              + Problem.quote(weight.name())
              + ": found "
              + weight.dtype()
              + " "
              + weight.shape()
              + ", expected F32, F16 or BF16 [N, K] of a size that the format can hold");
    }
  }

  /**
   * {@code adjust_max_memory}: the part of so much memory that weights may take, the rest being for
   * what the format needs while it quantizes. Here: nothing but the weights.
   */
  default long adjustMaxMemory(long bytes) {
    return bytes;
  }

  /**
   * {@code adjust_target_dtype}: how many bits a weight of this tensor takes once it is quantized,
   * scales included, as far as its shape alone tells: what {@code dev.gatun.quantize.Quantizer}
   * asks for before it begins, to see whether the disk holds the result. Here: as many as before.
   */
  default double targetBits(Tensor weight) {
    return weight.dtype().encoding().orElseThrow().bits();
  }
}
