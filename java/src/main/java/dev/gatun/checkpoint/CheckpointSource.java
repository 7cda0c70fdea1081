package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Tensor;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.Map;

/**
 * What a {@link CheckpointFormat} looks at: every tensor of a file or of all shards, the metadata,
 * and the JSON files that lie beside it.
 */
public interface CheckpointSource {
  /** The file, index or directory that was opened: for messages. */
  Path path();

  /** Every tensor that no other format has claimed, by name, in file order. */
  Map<String, Tensor> tensors();

  /** The container's metadata; of several shards, all of it. */
  Map<String, String> metadata();

  /**
   * A JSON file of the checkpoint's directory ({@code config.json}, {@code quantization_map.json});
   * a missing node when there is none.
   */
  JsonNode sidecar(String fileName);

  /** The file that holds a tensor: for messages. */
  default Path fileOf(String tensor) {
    return path();
  }

  /**
   * Where small parts that have to be unpacked get their memory; it ends with the checkpoint. Used
   * when a layer's matrix is first asked for, not by {@link CheckpointFormat#read}.
   */
  Arena arena();
}
