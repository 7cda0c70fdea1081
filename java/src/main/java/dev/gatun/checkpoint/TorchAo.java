package dev.gatun.checkpoint;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * torchao's tensor subclasses as its safetensors support flattens them: a JSON entry of the
 * metadata for each name of the state dict, data in {@code <module>._<parameter>_<part>}. Source:
 * torchao/prototype/safetensors.
 */
public final class TorchAo implements CheckpointFormat {
  static final String NAMES = "tensor_names";

  /** For {@link java.util.ServiceLoader}. */
  public TorchAo() {}

  @Override
  public String name() {
    return "torchao";
  }

  @Override
  public Found read(CheckpointSource source) {
    if (!source.metadata().containsKey(NAMES)) {
      return Found.NOTHING;
    }
    List<QuantizedTensor> layers = new ArrayList<>();
    Map<String, String> unsupported = new LinkedHashMap<>();
    Map<String, String> side = new LinkedHashMap<>();
    TorchAoTensors tensors = new TorchAoTensors(new Parts(source));
    SortedNames names = new SortedNames(source.tensors().keySet());
    for (String name : names(source)) {
      JsonNode entry = entry(source, name);
      String type = entry.path("_type").asText("");
      String layer = Parts.layerOf(name);
      if (TorchAoTensors.TYPES.contains(type)) {
        layers.add(tensors.read(layer, name, type, entry));
      } else if (type.isEmpty()) {
        throw Problem.tensor(
            source.path(), name, "no '_type' in its metadata", "the name of its tensor class");
      } else if (!type.equals("Tensor")) {
        unsupported.put(layer, "torchao's " + Problem.quote(type) + " is not read");
        String prefix = TorchAoTensors.prefix(name);
        names
            .startingWith(prefix)
            .forEach(n -> side.put(n, "part of a torchao weight that is not read"));
      } else if (!source.tensors().containsKey(name)) {
        throw Problem.tensor(
            source.path(), name, "no such tensor", "the plain tensor that the metadata names");
      }
    }
    return new Found(layers, side, unsupported);
  }

  /** The names that the metadata lists; of several shards, those that have an entry too. */
  private static Set<String> names(CheckpointSource source) {
    JsonNode listed = json(source, NAMES);
    if (!listed.isArray()) {
      throw Problem.tensor(source.path(), NAMES, "metadata that is no list", "a list of names");
    }
    Set<String> names = new TreeSet<>();
    for (JsonNode name : listed) {
      if (!name.isTextual()) {
        throw Problem.tensor(source.path(), NAMES, "a name that is no text", "names");
      }
      names.add(name.asText());
    }
    source
        .metadata()
        .forEach(
            (key, value) -> {
              if (value.startsWith("{\"_type\"")) {
                names.add(key);
              }
            });
    return names;
  }

  private static JsonNode entry(CheckpointSource source, String name) {
    if (!source.metadata().containsKey(name)) {
      throw Problem.tensor(source.path(), name, "no entry in the metadata", "one, as it is listed");
    }
    return json(source, name);
  }

  private static JsonNode json(CheckpointSource source, String key) {
    try {
      return Json.tree(source.metadata().getOrDefault(key, ""));
    } catch (JsonProcessingException e) {
      throw new GatunException(
          source.path()
              + ": metadata "
              + Problem.quote(key)
              + ": found "
              + Json.reason(e)
              + ", expected JSON",
          e);
    }
  }

  @Override
  public Set<String> metadataKeys() {
    return Set.of(NAMES);
  }

  @Override
  public Map<String, String> writes() {
    return TorchAoWeights.formats();
  }

  @Override
  public boolean canWrite(String format) {
    return TorchAoWeights.isKnown(format);
  }

  @Override
  public LayerWriter writer(String format) {
    return new TorchAoWriter(format);
  }
}
