package dev.gatun.quantize.config;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import java.util.List;
import java.util.Optional;
import java.util.regex.Pattern;

/** Which modules a library's lists of names mean; each library matches them in its own way. */
final class Modules {
  /**
   * Last parts of the names of modules that hold a matrix and are no linear layer: the libraries
   * quantize linear layers only, and leave the output head; a checkpoint does not say what a module
   * is.
   */
  private static final Pattern NOT_LINEAR =
      Pattern.compile(
          "(.*_)?embeddings?|embed_tokens|embed_positions|wte|wpe|shared|relative_attention_bias"
              + "|lm_head");

  private Modules() {}

  /** Whether a layer of this name is a linear one, as far as names tell. */
  static boolean isLinear(String layer) {
    return !NOT_LINEAR.matcher(layer.substring(layer.lastIndexOf('.') + 1)).matches();
  }

  /** bitsandbytes and quanto: the module's own name, its whole path, or a path that leads to it. */
  static boolean skipsByName(Optional<List<String>> names, String layer) {
    String own = layer.substring(layer.lastIndexOf('.') + 1);
    return names.stream()
        .flatMap(List::stream)
        .anyMatch(name -> own.equals(name) || layer.equals(name) || layer.contains(name + "."));
  }

  /** torchao: the parameter's whole name, or a path that leads to it. */
  static boolean skipsByParameter(Optional<List<String>> names, String layer) {
    String parameter = layer + ".weight";
    return names.stream()
        .flatMap(List::stream)
        .anyMatch(name -> parameter.equals(name) || parameter.contains(name + "."));
  }

  /** The list, or null. */
  static JsonNode json(Optional<List<String>> names) {
    if (names.isEmpty()) {
      return JsonNodeFactory.instance.nullNode();
    }
    ArrayNode array = JsonNodeFactory.instance.arrayNode();
    names.get().forEach(array::add);
    return array;
  }
}
