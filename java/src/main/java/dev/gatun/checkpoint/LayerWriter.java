package dev.gatun.checkpoint;

import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Quantizes and names the weights of one output checkpoint, layer by layer. Keeps nothing from one
 * layer to the next: layers are quantized in any order, on any thread, and those that an earlier,
 * interrupted run has written are not quantized again.
 */
public interface LayerWriter {
  /**
   * One quantized weight.
   *
   * @param tensors what stands for it in the file, under the names of the format's own library
   * @param matrix the same for the kernels: to dequantize it and measure the error
   */
  record Quantized(List<Tensor> tensors, Matrix matrix) {}

  /**
   * A layer that is in the output checkpoint.
   *
   * @param layer plain name without {@code .weight}
   * @param format the name that it was written under, one of {@link CheckpointFormat#writes()}
   * @param dtype of the weight before: F32, F16 or BF16
   * @param shape of the weight before
   * @param tensors what stands for it in the file
   */
  record Written(
      String layer,
      String format,
      DType dtype,
      List<Long> shape,
      List<SafetensorsWriter.Entry> tensors) {
    /** Copies the lists. */
    public Written {
      shape = List.copyOf(shape);
      tensors = List.copyOf(tensors);
    }
  }

  /**
   * Whether this weight can be quantized: two dimensions, a float type, a shape the layout can
   * take.
   */
  boolean accepts(Tensor weight);

  /**
   * Quantizes one weight.
   *
   * @param layer plain name without {@code .weight}
   * @param weight F32, F16 or BF16, [N, K]
   * @param backend who quantizes
   * @param arena where the new tensors' memory comes from; must allow access from any thread
   */
  Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena);

  /**
   * Lays the codes and scales of a quantized weight out anew when this format can hold exactly
   * these values.
   *
   * @param layer plain name without {@code .weight}
   * @param weight as another format, or another variant of this one, holds it
   * @return empty when it cannot be done without loss
   */
  default Optional<Quantized> relay(String layer, QuantizedTensor weight, Arena arena) {
    return Optional.empty();
  }

  /**
   * Starts the file that the tensors go into: a safetensors file, unless the format has a container
   * of its own.
   *
   * @param entries every tensor that will be written
   * @param source what is quantized
   * @param metadata the source's and {@link #metadata}
   */
  default TensorFileWriter create(
      Path target,
      Collection<SafetensorsWriter.Entry> entries,
      Checkpoint source,
      Map<String, String> metadata) {
    return SafetensorsWriter.create(target, entries, metadata);
  }

  /**
   * Metadata for the container: {@code __metadata__}.
   *
   * @param layers every layer of this checkpoint format, in the source's order
   * @param copied the names of all other tensors
   */
  default Map<String, String> metadata(List<Written> layers, List<String> copied) {
    return Map.of();
  }

  /**
   * JSON files to write beside the checkpoint, by name: {@code quantization_map.json}.
   *
   * @param layers every layer of this checkpoint format, in the source's order
   */
  default Map<String, String> sidecars(List<Written> layers) {
    return Map.of();
  }
}
