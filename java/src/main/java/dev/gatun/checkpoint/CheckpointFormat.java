package dev.gatun.checkpoint;

import dev.gatun.QuantizedTensor;
import java.util.List;
import java.util.Map;

/**
 * One checkpoint format: which tensors and which metadata make up a layout. One class a format, found through {@link
 * java.util.ServiceLoader}; ours are registered the way a user's are.
 */
public interface CheckpointFormat {
  /** {@code comfyui}, {@code bitsandbytes}, {@code quanto}. */
  String name();

  /**
   * Finds this format's quantized weights among a checkpoint's tensors.
   *
   * @return the weights it recognises, each with the names of the tensors it is made of as {@link
   *     QuantizedTensor#parts()}; empty when the checkpoint is of another format
   * @throws dev.gatun.GatunException when the keys are this format's but do not hold together: names file, tensor, found
   *     and expected
   */
  List<QuantizedTensor> read(CheckpointSource source);

  /** The names under which {@code gatun quantize --format} writes this format, each with one line of help. */
  Map<String, String> writes();

  /** The writer for one of {@link #writes()}. */
  LayerWriter writer(String format);
}
