package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.List;
import java.util.Optional;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

/**
 * What {@code config.json} says of compressed-tensors' weights: groups of settings, each for
 * modules by class ("Linear"), by name or by expression ("re:…").
 *
 * @param json {@code quantization_config}; a missing node when it is not compressed-tensors'
 */
record CompressedTensorsConfig(JsonNode json) {
  private static final List<Long> USUAL_BLOCK = List.of(128L, 128L);

  static CompressedTensorsConfig of(CheckpointSource source) {
    JsonNode config = source.sidecar("config.json");
    JsonNode own = config.path("quantization_config");
    if (own.isMissingNode()) {
      own = config.path("compression_config");
    }
    return new CompressedTensorsConfig(own);
  }

  /** Whether the checkpoint says that it is of this format. */
  boolean present() {
    return json.path("quant_method").asText("").equals("compressed-tensors")
        || json.has("config_groups");
  }

  /** Bits of a layer's codes. */
  Optional<Integer> bits(String layer) {
    JsonNode bits = weights(layer).path("num_bits");
    return bits.isInt() ? Optional.of(bits.asInt()) : Optional.empty();
  }

  /** Weights of a row that share a scale; -1: all of them. */
  Optional<Long> groupSize(String layer) {
    JsonNode size = weights(layer).path("group_size");
    return size.isIntegralNumber() ? Optional.of(size.asLong()) : Optional.empty();
  }

  /** Rows and columns of a block. */
  List<Long> block(String layer) {
    JsonNode block = weights(layer).path("block_structure");
    long rows = block.path(0).asLong(0);
    long columns = block.path(1).asLong(0);
    return rows > 0 && columns > 0 ? List.of(rows, columns) : USUAL_BLOCK;
  }

  /** The settings whose targets name the layer, else those for a class of modules. */
  private JsonNode weights(String layer) {
    JsonNode byClass = null;
    for (JsonNode group : json.path("config_groups")) {
      for (JsonNode target : group.path("targets")) {
        String text = target.asText("");
        if (names(text, layer)) {
          return group.path("weights");
        }
        if (byClass == null && !text.startsWith("re:") && text.indexOf('.') < 0) {
          byClass = group.path("weights");
        }
      }
    }
    return byClass == null ? json.path("config_groups").path("").path("weights") : byClass;
  }

  private static boolean names(String target, String layer) {
    if (!target.startsWith("re:")) {
      return target.equals(layer);
    }
    try {
      return Pattern.compile(target.substring(3)).matcher(layer).lookingAt();
    } catch (PatternSyntaxException e) {
      return false; // Python's expressions are not all Java's
    }
  }
}
