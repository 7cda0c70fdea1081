package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;

/**
 * The steps around one weight's quantization, in the order in which {@code
 * dev.gatun.quantize.Quantizer} takes them; they are those of diffusers' {@code
 * DiffusersQuantizer}. The step in the middle, {@code create_quantized_param}, is {@link
 * LayerWriter#quantize}; what follows when all weights are there, {@code postprocess_model}, is
 * {@link LayerWriter#metadata}, {@link LayerWriter#sidecars} and {@link LayerWriter#once}.
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
   * {@code dequantize}: the weight as floats again, as the format's own library gives them.
   *
   * @param name of the tensor that is made
   * @param dtype F32, F16 or BF16
   * @param arena where its memory comes from; must allow access from any thread
   */
  default Tensor dequantize(
      String name, Matrix quantized, DType dtype, Backend backend, Arena arena) {
    Tensor weight = WriterSupport.allocate(arena, name, dtype, quantized.n(), quantized.k());
    MemorySegment data = weight.data();
    Matrix as = quantized.withResult(Parts.encoding(weight));
    backend.dequantize(as, 0, as.n(), data, Parts.encoding(weight));
    return weight;
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
   * scales included, as far as the shape alone tells; for planning.
   */
  default double targetBits(Tensor weight) {
    return weight.dtype().encoding().orElseThrow().bits();
  }
}
