package dev.gatun.checkpoint;

import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import java.util.List;
import java.util.Map;

/** Quantizes and names the weights of one output checkpoint, layer by layer. */
public interface LayerWriter {
  /** Whether this weight can be quantized: two dimensions, a float type, a shape the layout can take. */
  boolean accepts(Tensor weight);

  /**
   * The tensors that stand for a quantized weight in the file, under the names of the format's own library.
   *
   * @param layer plain name without {@code .weight}
   * @param weight F32, F16 or BF16, [N, K]
   * @param backend who quantizes
   */
  List<Tensor> quantize(String layer, Tensor weight, Backend backend);

  /** Metadata for the container once every layer is known: {@code __metadata__}. */
  Map<String, String> metadata();

  /** JSON files to write beside the checkpoint, by name: {@code quantization_map.json}. */
  Map<String, String> sidecars();
}
