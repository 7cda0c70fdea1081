package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import java.lang.foreign.Arena;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.ServiceLoader;

/**
 * A quantized checkpoint: one or more mapped files, and the quantized weights that the {@link
 * CheckpointFormat}s find in them. Nothing is read into the heap. Safe for any number of threads
 * until it is closed; tensors and weights end with it, packed {@link dev.gatun.Linear}s do not.
 */
public final class Checkpoint implements AutoCloseable {
  private static final String WEIGHT = ".weight";

  private final Path path;
  private final Shards shards;
  private final Map<String, QuantizedTensor> layers = new LinkedHashMap<>();
  private final Map<String, CheckpointFormat> formats = new LinkedHashMap<>();
  private final Map<String, String> side = new LinkedHashMap<>();
  private final Map<String, String> unsupported = new LinkedHashMap<>();
  private final Map<String, Tensor> plain;
  private volatile boolean closed;

  private Checkpoint(Path path, Shards shards) {
    this.path = path;
    this.shards = shards;
    this.plain = new LinkedHashMap<>(shards.tensors());
    for (CheckpointFormat format : formats()) {
      add(
          format,
          format.read(new Source(shards.file(), shards, Collections.unmodifiableMap(plain))));
    }
  }

  /**
   * Opens a checkpoint.
   *
   * @param path a safetensors or GGUF file, a {@code *.safetensors.index.json}, any part of a split
   *     GGUF file, or a directory that holds {@code model.safetensors}, an index or a single file
   *     of either kind
   * @throws GatunException when it cannot be read, breaks a rule of the container, or has a
   *     quantized weight whose parts do not hold together: one line that names file, tensor, found
   *     and expected
   */
  public static Checkpoint open(Path path) {
    Shards shards = Shards.open(path);
    boolean done = false;
    try {
      Checkpoint checkpoint = new Checkpoint(path, shards);
      done = true;
      return checkpoint;
    } catch (InternalError e) { // how the JVM reports a mapped page that is gone
      throw new GatunException(
          path + ": found a file that shrank while it was read, expected a stable file", e);
    } finally {
      if (!done) {
        shards.close();
      }
    }
  }

  /** Every checkpoint format on the class or module path, in the order in which they are asked. */
  public static List<CheckpointFormat> formats() {
    return ServiceLoader.load(CheckpointFormat.class, Checkpoint.class.getClassLoader()).stream()
        .map(ServiceLoader.Provider::get)
        .sorted(
            Comparator.comparingInt(CheckpointFormat::order).thenComparing(CheckpointFormat::name))
        .toList();
  }

  /** What was opened, as it was given. */
  public Path path() {
    return path;
  }

  /** The files that are mapped. */
  public List<Path> files() {
    return shards.files().stream().map(TensorFile::path).toList();
  }

  /** The files themselves. */
  List<TensorFile> containers() {
    live();
    return shards.files();
  }

  /** Every tensor by name, in file order. */
  public Map<String, Tensor> tensors() {
    live();
    return shards.tensors();
  }

  /** The container's metadata; of several shards, all of it. */
  public Map<String, String> metadata() {
    live();
    return shards.metadata();
  }

  /**
   * A JSON file of the checkpoint's directory, such as {@code config.json}; a missing node when
   * there is none.
   */
  public JsonNode sidecar(String fileName) {
    return sidecar(shards, fileName);
  }

  /** The quantized weights by plain layer name, without {@code .weight}. */
  public Map<String, QuantizedTensor> layers() {
    live();
    return Collections.unmodifiableMap(layers);
  }

  /** Tensors that are no part of a quantized weight and none of its side tensors, in file order. */
  public Map<String, Tensor> plain() {
    live();
    return Collections.unmodifiableMap(plain);
  }

  /**
   * Tensors that belong to the quantization without being part of a weight, each with one line that
   * explains it.
   */
  public Map<String, String> notes() {
    return Collections.unmodifiableMap(side);
  }

  /** Layers of a known format that cannot be read, by plain name, each with the reason. */
  public Map<String, String> unsupported() {
    return Collections.unmodifiableMap(unsupported);
  }

  /**
   * Tensors that look like a part of a quantized weight and that no format claimed, each with one
   * line that says what they probably are.
   */
  public Map<String, String> unclaimed() {
    Map<String, String> unknown = new LinkedHashMap<>();
    for (Tensor tensor : plain.values()) {
      UnknownKeys.explain(tensor).ifPresent(line -> unknown.put(tensor.name(), line));
    }
    return unknown;
  }

  /**
   * A tensor by its name in the file.
   *
   * @throws GatunException when there is none; lists near names
   */
  public Tensor tensor(String name) {
    live();
    Tensor tensor = shards.tensors().get(name);
    if (tensor == null) {
      throw new GatunException(
          path
              + ": no tensor "
              + Problem.quote(name)
              + NearNames.hint(name, shards.tensors().keySet()));
    }
    return tensor;
  }

  /**
   * A quantized weight, its scales checked.
   *
   * @param layer plain name, with or without {@code .weight}
   * @throws GatunException when there is no such layer, it is not quantized, it is of a format that
   *     is not supported, or it has a scale that is not finite
   */
  public QuantizedTensor quantized(String layer) {
    live();
    String name = plainName(layer);
    QuantizedTensor weight = layers.get(name);
    if (weight == null) {
      throw missing(name);
    }
    shards.verifyLengths();
    try {
      ScaleCheck.check(weight, shards::fileOf);
    } catch (InternalError e) {
      throw new GatunException(
          path + ": found a file that shrank while it was read, expected a stable file", e);
    }
    return weight;
  }

  /** The layer's bias when it has one. */
  public Optional<Tensor> bias(String layer) {
    live();
    return Optional.ofNullable(plain.get(plainName(layer) + ".bias"));
  }

  /** {@link #linear(String, Compute, Device)} with compute type F32. */
  public Linear linear(String layer, Device device) {
    return linear(layer, Compute.F32, device);
  }

  /**
   * A linear layer, found, checked and packed with its bias; it does not need the checkpoint
   * afterwards. A layer that is not quantized is multiplied as the plain numbers that it is.
   *
   * @param layer plain name, with or without {@code .weight}
   * @throws GatunException when there is no such layer, it does not hold together, or the device
   *     refuses it
   */
  public Linear linear(String layer, Compute compute, Device device) {
    live();
    String name = plainName(layer);
    Tensor bias = plain.get(name + ".bias");
    Tensor weight = layers.containsKey(name) ? null : plain.get(name + WEIGHT);
    if (weight == null) {
      return Linear.of(quantized(name), bias, compute, device);
    }
    shards.verifyLengths();
    return Linear.of(weight, bias, compute, device);
  }

  /** The format that a quantized layer is of. */
  public Optional<CheckpointFormat> format(String layer) {
    return Optional.ofNullable(formats.get(plainName(layer)));
  }

  /**
   * Checks that every file is as long as when it was opened; called before native code is handed
   * tensors of it.
   *
   * @throws GatunException when one has become shorter
   */
  public void verifyFiles() {
    live();
    shards.verifyLengths();
  }

  /** Unmaps every file. A second call does nothing. */
  @Override
  public void close() {
    closed = true;
    shards.close();
  }

  private void live() {
    if (closed) {
      throw new IllegalStateException(path + " is closed");
    }
  }

  private String plainName(String layer) {
    boolean suffixed = layer.endsWith(WEIGHT) && !layers.containsKey(layer);
    return suffixed ? layer.substring(0, layer.length() - WEIGHT.length()) : layer;
  }

  private GatunException missing(String name) {
    String reason = unsupported.get(name);
    if (reason != null) {
      return new GatunException(path + ": layer " + Problem.quote(name) + ": " + reason);
    }
    List<String> names = new ArrayList<>(layers.keySet());
    names.addAll(unsupported.keySet());
    for (String tensor : plain.keySet()) {
      if (tensor.endsWith(WEIGHT)) {
        names.add(plainName(tensor));
      }
    }
    return new GatunException(
        path + ": no layer " + Problem.quote(name) + NearNames.hint(name, names));
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

  private static JsonNode sidecar(Shards shards, String fileName) {
    return Json.file(shards.directory().resolve(fileName));
  }

  private record Source(Path path, Shards shards, Map<String, Tensor> tensors)
      implements CheckpointSource {
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
      return Checkpoint.sidecar(shards, fileName);
    }

    @Override
    public Path fileOf(String tensor) {
      return shards.fileOf(tensor);
    }
  }
}
