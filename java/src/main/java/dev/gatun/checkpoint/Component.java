package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The files of one model and what the formats find in them: a whole checkpoint, or one folder of a
 * pipeline.
 */
final class Component {
  private final String prefix;
  private final Shards shards;
  private final Map<String, QuantizedTensor> layers = new LinkedHashMap<>();
  private final Map<String, CheckpointFormat> formats = new LinkedHashMap<>();
  private final Map<String, String> side = new LinkedHashMap<>();
  private final Map<String, String> unsupported = new LinkedHashMap<>();
  private final Map<String, Tensor> plain;

  /**
   * Reads a model.
   *
   * @param prefix of every name in the checkpoint: empty, or {@code folder/}
   */
  Component(String prefix, Shards shards, List<CheckpointFormat> all) {
    this.prefix = prefix;
    this.shards = shards;
    this.plain = new LinkedHashMap<>(shards.tensors());
    for (CheckpointFormat format : all) {
      add(format, read(format));
    }
  }

  /** Sizes of a hostile file may overflow wherever they are multiplied. */
  private CheckpointFormat.Found read(CheckpointFormat format) {
    try {
      return format.read(new Source(shards, Collections.unmodifiableMap(plain)));
    } catch (ArithmeticException e) {
      throw new GatunException(
          shards.file()
              + ": "
              + format.name()
              + ": found sizes whose product overflows, expected sizes that the tensors have",
          e);
    }
  }

  String prefix() {
    return prefix;
  }

  Shards shards() {
    return shards;
  }

  Map<String, QuantizedTensor> layers() {
    return prefixed(layers);
  }

  Map<String, CheckpointFormat> formats() {
    return prefixed(formats);
  }

  Map<String, String> side() {
    return prefixed(side);
  }

  Map<String, String> unsupported() {
    return prefixed(unsupported);
  }

  Map<String, Tensor> plain() {
    return prefixed(plain);
  }

  Map<String, Tensor> tensors() {
    return prefixed(shards.tensors());
  }

  Map<String, String> metadata() {
    return prefixed(shards.metadata());
  }

  private <T> Map<String, T> prefixed(Map<String, T> map) {
    if (prefix.isEmpty()) {
      return map;
    }
    Map<String, T> renamed = new LinkedHashMap<>();
    map.forEach((name, value) -> renamed.put(prefix + name, renamed(value)));
    return renamed;
  }

  @SuppressWarnings("unchecked")
  private <T> T renamed(T value) {
    return switch (value) {
      case Tensor t -> (T) new Tensor(prefix + t.name(), t.dtype(), t.shape(), t.data());
      case QuantizedTensor q -> (T) q.withName(prefix + q.name());
      default -> value;
    };
  }

  private void add(CheckpointFormat format, CheckpointFormat.Found found) {
    for (QuantizedTensor layer : found.layers()) {
      if (layers.putIfAbsent(layer.name(), layer) != null) {
        throw Problem.tensor(
            shards.file(),
            layer.name(),
            "two quantized weights, " + formats.get(layer.name()).name() + " and " + format.name(),
            "one");
      }
      formats.put(layer.name(), format);
    }
    for (QuantizedTensor layer : found.layers()) {
      layer.parts().values().forEach(part -> plain.remove(part.name()));
    }
    found.side().keySet().forEach(plain::remove);
    side.putAll(found.side());
    unsupported.putAll(found.unsupported());
  }

  private record Source(Shards shards, Map<String, Tensor> tensors) implements CheckpointSource {
    @Override
    public Path path() {
      return shards.file();
    }

    @Override
    public Arena arena() {
      return shards.arena();
    }

    @Override
    public Map<String, String> metadata() {
      return shards.metadata();
    }

    @Override
    public JsonNode sidecar(String fileName) {
      return Json.file(shards.directory().resolve(fileName));
    }

    @Override
    public Path fileOf(String tensor) {
      return shards.fileOf(tensor);
    }
  }
}
