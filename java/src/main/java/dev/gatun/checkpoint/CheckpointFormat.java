package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * One checkpoint format: which tensors and which metadata make up a layout. One class a format,
 * found through {@link java.util.ServiceLoader}; ours are registered the way a user's are.
 */
public interface CheckpointFormat {
  /**
   * What a format recognises in a checkpoint.
   *
   * @param layers the weights, each with the tensors it is made of as {@link
   *     QuantizedTensor#parts()}
   * @param side tensors that belong to the quantization without being part of a weight (activation
   *     scales, markers), by name, each with one line that explains it; they are dropped when a
   *     checkpoint is dequantized
   * @param unsupported layers by plain name that are this format's but cannot be read, each with
   *     the reason: using one is an error, listing the checkpoint is not
   */
  record Found(
      List<QuantizedTensor> layers, Map<String, String> side, Map<String, String> unsupported) {
    /** Nothing of this format. */
    public static final Found NOTHING = new Found(List.of(), Map.of(), Map.of());
  }

  /** {@code comfyui}, {@code bitsandbytes}, {@code quanto}. */
  String name();

  /**
   * Formats are asked in ascending order, and one does not see the tensors that another has
   * claimed. A format that can only be told by its lack of marks comes late.
   */
  default int order() {
    return 0;
  }

  /**
   * Finds this format's quantized weights among a checkpoint's tensors. Looks at names, shapes and
   * small tensors only: a checkpoint may be larger than memory.
   *
   * @throws dev.gatun.GatunException when the keys are this format's but do not hold together:
   *     names file, tensor, found and expected
   */
  Found read(CheckpointSource source);

  /**
   * The same weight, to be dequantized to another type than its own. Most libraries dequantize to
   * the layer's own type and convert; one that computes in the type that is asked for overrides
   * this.
   *
   * @param dtype F32, F16 or BF16
   */
  default QuantizedTensor withDtype(QuantizedTensor layer, Encoding dtype) {
    return layer;
  }

  /**
   * Keys of the container's metadata that this format owns; dropped when a checkpoint is
   * dequantized.
   */
  default Set<String> metadataKeys() {
    return Set.of();
  }

  /**
   * The names under which {@code gatun quantize --format} writes this format, each with one line of
   * help.
   */
  Map<String, String> writes();

  /**
   * Whether {@link #writer} knows a name: one of {@link #writes()}, or a variant of one that only
   * configurations ask for.
   */
  default boolean canWrite(String format) {
    return writes().containsKey(format);
  }

  /**
   * The writer for a name that {@link #canWrite} lets through.
   *
   * @throws dev.gatun.GatunException when there is none of that name
   */
  LayerWriter writer(String format);
}
