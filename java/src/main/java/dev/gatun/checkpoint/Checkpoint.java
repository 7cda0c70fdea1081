package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Compute;
import dev.gatun.ComputePlan;
import dev.gatun.Conv2d;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.layout.PlainLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.ServiceLoader;
import org.jspecify.annotations.Nullable;

/**
 * A quantized checkpoint: one or more mapped files, and the quantized weights that the {@link
 * CheckpointFormat}s find in them. Nothing is read into the heap. Safe for any number of threads
 * until it is closed; tensors and weights end with it, packed {@link dev.gatun.Linear}s do not.
 */
public final class Checkpoint implements AutoCloseable {
  /** How the name of what a plain weight's input is multiplied by ends. */
  public static final String INPUT_MULTIPLIER = ".pre_quant_scale";

  /** The key of the metadata under which a file has its {@link ComputePlan} as text. */
  public static final String COMPUTE_PLAN = "gatun.compute_plan";

  private static final System.Logger LOG = System.getLogger(Checkpoint.class.getName());
  private static final String WEIGHT = ".weight";

  /** Bytes; smaller tensors share pages with others. */
  private static final long WORTH_RELEASING = 1 << 16;

  private final Path path;
  private final List<Component> components;
  private final Map<String, Component> owners = new LinkedHashMap<>();
  private final Map<String, QuantizedTensor> layers = new LinkedHashMap<>();
  private final Map<String, CheckpointFormat> formats = new LinkedHashMap<>();
  private final Map<String, String> side = new LinkedHashMap<>();
  private final Map<String, String> unsupported = new LinkedHashMap<>();
  private final Map<String, Tensor> plain = new LinkedHashMap<>();
  private final Map<String, Tensor> tensors = new LinkedHashMap<>();
  private final Map<String, String> metadata = new LinkedHashMap<>();
  private @Nullable PackedFile packed;
  private volatile boolean closed;

  private Checkpoint(Path path, Map<String, Shards> models) {
    this.path = path;
    List<CheckpointFormat> all = formats();
    this.components =
        models.entrySet().stream()
            .map(
                model ->
                    new Component(
                        model.getKey().isEmpty() ? "" : model.getKey() + "/",
                        model.getValue(),
                        all))
            .toList();
    for (Component component : components) {
      component.layers().keySet().forEach(layer -> owners.put(layer, component));
      layers.putAll(component.layers());
      formats.putAll(component.formats());
      side.putAll(component.side());
      unsupported.putAll(component.unsupported());
      plain.putAll(component.plain());
      tensors.putAll(component.tensors());
      metadata.putAll(component.metadata());
    }
  }

  /**
   * Opens a checkpoint.
   *
   * @param path a safetensors or GGUF file, a {@code *.safetensors.index.json}, any part of a split
   *     GGUF file, a directory that holds {@code model.safetensors}, an index or a single file of
   *     either kind, or a diffusers pipeline: a directory with {@code model_index.json}, whose
   *     components' layers and tensors are named {@code folder/layer}
   * @throws GatunException when it cannot be read, breaks a rule of the container, or has a
   *     quantized weight whose parts do not hold together: one line that names file, tensor, found
   *     and expected
   */
  public static Checkpoint open(Path path) {
    Map<String, Shards> models =
        Pipeline.directory(path).map(Pipeline::open).orElseGet(() -> Map.of("", Shards.open(path)));
    boolean done = false;
    try {
      Checkpoint checkpoint = new Checkpoint(path, models);
      checkpoint.findPacked();
      done = true;
      return checkpoint;
    } catch (InternalError e) { // how the JVM reports a mapped page that is gone
      throw new GatunException(
          path + ": found a file that shrank while it was read, expected a stable file", e);
    } finally {
      if (!done) {
        models.values().forEach(Shards::close);
      }
    }
  }

  /** A packed form that cannot be used is said to be so, and not used. */
  private void findPacked() {
    Path file = PackedFile.beside(path);
    if (Files.isRegularFile(file)) {
      try {
        packed = PackedFile.open(file, this);
      } catch (GatunException e) {
        LOG.log(System.Logger.Level.INFO, e.getMessage() + "; its weights are packed when opened");
      }
    }
  }

  /**
   * The packed weights beside this checkpoint, from which {@link #linear} takes what its device can
   * use; empty when there are none, or none of the checkpoint as it is now.
   */
  public Optional<PackedFile> packed() {
    live();
    return Optional.ofNullable(packed);
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
    return components.stream()
        .flatMap(component -> component.shards().files().stream())
        .map(TensorFile::path)
        .toList();
  }

  /** The files themselves. */
  List<TensorFile> containers() {
    live();
    return components.stream().flatMap(component -> component.shards().files().stream()).toList();
  }

  /** Every tensor by name, in file order. */
  public Map<String, Tensor> tensors() {
    live();
    return Collections.unmodifiableMap(tensors);
  }

  /** The container's metadata; of several shards, all of it. */
  public Map<String, String> metadata() {
    live();
    return Collections.unmodifiableMap(metadata);
  }

  /**
   * A JSON file of the checkpoint's directory, such as {@code config.json}; a missing node when
   * there is none.
   */
  public JsonNode sidecar(String fileName) {
    return Json.file(components.get(0).shards().directory().resolve(fileName));
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
    Tensor tensor = tensors.get(name);
    if (tensor == null) {
      throw new GatunException(
          path + ": no tensor " + Problem.quote(name) + NearNames.hint(name, tensors.keySet()));
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
    Shards shards = Objects.requireNonNull(owners.get(name)).shards();
    shards.verifyLengths();
    try {
      ScaleCheck.check(weight, shards::fileOf);
    } catch (ArithmeticException e) {
      throw new GatunException(
          path
              + ": layer "
              + Problem.quote(name)
              + ": found sizes whose product overflows, expected sizes that its tensors have",
          e);
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

  /**
   * {@link #linear(String, Compute, Device)} with the compute type that the file stores for the
   * layer, else F32.
   */
  public Linear linear(String layer, Device device) {
    return linear(layer, compute(layer), device);
  }

  /**
   * The compute type of a layer that the file's metadata stores, as {@code gatun quantize
   * --compute} writes them; F32 when it stores none.
   *
   * @param layer plain name, with or without {@code .weight}
   * @throws GatunException when what it stores is no {@link ComputePlan}
   */
  public Compute compute(String layer) {
    live();
    String name = plainName(layer);
    for (Component component : components) {
      String plan = component.metadata().get(COMPUTE_PLAN);
      if (plan != null && name.startsWith(component.prefix())) {
        try {
          return ComputePlan.parse(plan).of(name.substring(component.prefix().length()));
        } catch (GatunException e) {
          throw new GatunException(path + ": metadata " + COMPUTE_PLAN + ": " + e.getMessage(), e);
        }
      }
    }
    return Compute.F32;
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
    PackedFile file = packed;
    QuantizedTensor ready = layers.get(name);
    if (file != null && ready != null && file.layers().contains(name)) { // checked when packed
      return Linear.of(
          ready, bias, compute, device, (backend, matrix) -> file.find(name, backend, matrix));
    }
    if (weight == null) {
      QuantizedTensor quantized = quantized(name);
      Linear linear = Linear.of(quantized, bias, compute, device);
      release(quantized);
      return linear;
    }
    verifyFiles();
    Optional<Tensor> multiplier = inputMultiplier(name);
    Linear linear =
        multiplier.isEmpty()
            ? Linear.of(weight, bias, compute, device)
            : Linear.of(multiplied(weight, multiplier.get()), bias, compute, device);
    release(weight);
    return linear;
  }

  /**
   * Lets the pages of a weight go that were read so far: they no longer count as this process's
   * memory, and come back from the file when they are read again. {@link #linear} does so with what
   * it has packed.
   *
   * @param weight one of {@link #layers()}
   */
  public void release(QuantizedTensor weight) {
    weight.parts().values().forEach(this::release);
  }

  /** The same for a tensor of {@link #tensors()}. */
  public void release(Tensor tensor) {
    live();
    MemorySegment data = tensor.data();
    // Only of our own read-only mappings: private ones of others would lose what was written.
    boolean own = containers().stream().anyMatch(file -> file.holds(data));
    if (own && data.byteSize() >= WORTH_RELEASING) {
      data.unload();
    }
  }

  /** A plain weight with what its input is multiplied by. */
  private static QuantizedTensor multiplied(Tensor weight, Tensor multiplier) {
    PlainLayout layout = new PlainLayout(Parts.encoding(weight));
    Parts.Size size = Parts.Size.of(weight.shape());
    return new QuantizedTensor(
        weight.name(),
        weight.shape(),
        layout,
        Map.of("codes", weight, QuantizedTensor.INPUT_MULTIPLIER, multiplier),
        layout.matrix(size.n(), size.k(), weight.data()),
        layout.encoding());
  }

  /**
   * What x is multiplied by before a layer's weight is applied, element by element: K numbers.
   * Dequantized checkpoints keep it as {@code X.pre_quant_scale}.
   *
   * @param layer plain name, with or without {@code .weight}
   */
  public Optional<Tensor> inputMultiplier(String layer) {
    live();
    String name = plainName(layer);
    QuantizedTensor quantized = layers.get(name);
    if (quantized != null) {
      return quantized.inputMultiplier();
    }
    Tensor weight = plain.get(name + WEIGHT);
    return Optional.ofNullable(plain.get(name + INPUT_MULTIPLIER))
        .filter(t -> weight != null && Parts.isFloat(weight) && Parts.isFloat(t))
        .filter(t -> t.elements() == Parts.Size.of(weight.shape()).k());
  }

  /** The same with the compute type that a plan has for the layer. */
  public Linear linear(String layer, ComputePlan plan, Device device) {
    return linear(layer, plan.of(plainName(layer)), device);
  }

  /** {@link #conv2d(String, Conv2d.Geometry, Compute, Device)} with compute type F32. */
  public Conv2d conv2d(String layer, Conv2d.Geometry geometry, Device device) {
    return conv2d(layer, geometry, Compute.F32, device);
  }

  /**
   * A convolution, found, checked and packed with its bias; it does not need the checkpoint
   * afterwards. The weight has four dimensions, [N, C, height, width]; a layer whose format does
   * not store them goes through {@link Conv2d#of(QuantizedTensor, Tensor, Conv2d.Geometry, Compute,
   * Device)}.
   *
   * @param layer plain name, with or without {@code .weight}
   * @throws GatunException when there is no such layer, it does not hold together, or the device
   *     refuses it
   */
  public Conv2d conv2d(String layer, Conv2d.Geometry geometry, Compute compute, Device device) {
    live();
    String name = plainName(layer);
    Tensor bias = plain.get(name + ".bias");
    Tensor weight = layers.containsKey(name) ? null : plain.get(name + WEIGHT);
    if (weight == null) {
      return Conv2d.of(quantized(name), bias, geometry, compute, device);
    }
    verifyFiles();
    return Conv2d.of(weight, bias, geometry, compute, device);
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
    components.forEach(component -> component.shards().verifyLengths());
  }

  /**
   * A part of a tensor's data, mapped once more: its pages count as this process's memory until the
   * arena ends. Who reads all of a checkpoint larger than memory reads it so.
   *
   * @param part of the data of one of {@link #tensors()}; other memory is returned as it is
   */
  public MemorySegment again(MemorySegment part, Arena arena) {
    for (TensorFile file : containers()) {
      Optional<MemorySegment> mapped = file.again(part, arena);
      if (mapped.isPresent()) {
        return mapped.get();
      }
    }
    return part;
  }

  /** Unmaps every file. A second call does nothing. */
  @Override
  public void close() {
    closed = true;
    PackedFile file = packed;
    if (file != null) {
      file.close();
    }
    components.forEach(component -> component.shards().close());
  }

  private void live() {
    if (closed) {
      throw new IllegalStateException(path + " is closed");
    }
  }

  /** A layer's name without {@code .weight}, unless that is a part of it. */
  public String plainName(String layer) {
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
}
