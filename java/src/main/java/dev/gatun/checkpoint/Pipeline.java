package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.GatunException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/**
 * A diffusers pipeline: a directory whose {@code model_index.json} names components, each in a
 * folder of its own, some of them models.
 */
final class Pipeline {
  private static final String INDEX = "model_index.json";

  private Pipeline() {}

  /** The directory, when the path is a pipeline's directory or its index. */
  static Optional<Path> directory(Path path) {
    Path directory =
        path.getFileName() != null && path.getFileName().toString().equals(INDEX)
            ? path.toAbsolutePath().getParent()
            : path;
    return directory != null && Files.isRegularFile(directory.resolve(INDEX))
        ? Optional.of(directory)
        : Optional.empty();
  }

  /** Opens the files of every component that is a model, by the name of its folder. */
  static Map<String, Shards> open(Path directory) {
    JsonNode index = Json.file(directory.resolve(INDEX));
    if (!index.isObject()) {
      throw Problem.file(directory.resolve(INDEX), "no JSON object", "one entry a component");
    }
    Map<String, Shards> models = new LinkedHashMap<>();
    boolean done = false;
    try {
      for (Map.Entry<String, JsonNode> entry : index.properties()) {
        String name = entry.getKey();
        boolean component = !name.startsWith("_") && entry.getValue().isArray();
        if (component && isPlain(name) && Shards.isModel(directory.resolve(name))) {
          models.put(name, Shards.open(directory.resolve(name)));
        }
      }
      if (models.isEmpty()) {
        throw new GatunException(
            directory.resolve(INDEX)
                + ": found no component with model files, expected a folder with *.safetensors for"
                + " at least one");
      }
      done = true;
      return models;
    } finally {
      if (!done) {
        models.values().forEach(Shards::close);
      }
    }
  }

  /** A folder of the pipeline's own directory and no path that leads elsewhere. */
  private static boolean isPlain(String name) {
    return !name.isEmpty()
        && !name.equals(".")
        && !name.equals("..")
        && name.indexOf('/') < 0
        && name.indexOf('\\') < 0
        && name.indexOf('\0') < 0;
  }
}
