package dev.gatun.quantize;

import dev.gatun.Compute;
import dev.gatun.Conv2d;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.StaticActivations;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.quantize.QuantizedModule.Kind;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;

/**
 * A model whose modules are quantized as quanto does it: quantize, calibrate, freeze, save,
 * requantize.
 *
 * <pre>{@code
 * QuantizedModel model = QuantizedModel.quantize(floats, Settings.of("qint8", "qint8"), device);
 * Calibration calibration = model.calibration();
 * … forward passes through model.observed(name, calibration) …
 * model.adopt(calibration.scales());
 * model.freeze();
 * model.save(directory);
 * }</pre>
 *
 * <p>Weights stay in the checkpoint, however large it is: a module that is not frozen is quantized
 * each time that it is asked for, and saving goes from one module to the next. The checkpoint must
 * outlive the model. Not safe for several threads at once.
 */
public final class QuantizedModel {
  /** The file of the weights in the directory of a saved model. */
  public static final String WEIGHTS = "model.safetensors";

  /**
   * Which two-dimensional weights are no linear layers. A checkpoint does not say so; quanto looks
   * at the module's class.
   */
  public static final List<String> EMBEDDINGS = List.of("*embed*", "*wte", "*wpe", "shared");

  private static final String WEIGHT = ".weight";
  private static final String INPUT = ".input_scale";
  private static final String OUTPUT = ".output_scale";

  /**
   * What is quantized, and to what.
   *
   * @param weights one of quanto's types: {@code qint8} …; empty: only layer norms are quantized
   * @param activations {@code qint8} or an 8-bit float; empty: none, and no layer norms then
   * @param include globs as Python's fnmatch has them; when not empty, one must match a module's
   *     name
   * @param exclude globs of which none may match
   */
  public record Settings(
      Optional<String> weights,
      Optional<String> activations,
      List<String> include,
      List<String> exclude) {
    /** Copies the lists, refuses unknown types. */
    public Settings {
      new QuantizationMap.Module(weights, activations); // refuses what quanto does not have
      include = List.copyOf(include);
      exclude = List.copyOf(exclude);
    }

    /** Weights alone, of all modules. */
    public static Settings of(String weights) {
      return new Settings(Optional.of(weights), Optional.empty(), List.of(), List.of());
    }

    /** Weights and activations of all modules. */
    public static Settings of(String weights, String activations) {
      return new Settings(Optional.of(weights), Optional.of(activations), List.of(), List.of());
    }

    /** The same with exclusions. */
    public Settings excluding(String... globs) {
      return new Settings(weights, activations, include, List.of(globs));
    }

    /** The same, restricted. */
    public Settings including(String... globs) {
      return new Settings(weights, activations, List.of(globs), exclude);
    }

    private boolean accepts(String name) {
      return (include.isEmpty() || Fnmatch.any(include, name)) && !Fnmatch.any(exclude, name);
    }
  }

  private final Checkpoint checkpoint;
  private final Device device;
  private final Map<String, QuantizedModule> modules;
  private boolean frozen;

  private QuantizedModel(
      Checkpoint checkpoint, Device device, Map<String, QuantizedModule> modules) {
    this.checkpoint = checkpoint;
    this.device = device;
    this.modules = modules;
    this.frozen =
        modules.values().stream().allMatch(m -> m.frozen() || m.kind() == Kind.LAYER_NORM);
  }

  /**
   * Quantizes a checkpoint of plain floats. Linear layers are its two-dimensional {@code *.weight}
   * that are no {@link #EMBEDDINGS}, convolutions the four-dimensional ones, layer norms the
   * vectors beside a {@code *.bias} in a module with "norm" in its name (a group norm looks alike:
   * exclude it).
   */
  public static QuantizedModel quantize(Checkpoint floats, Settings settings, Device device) {
    if (!floats.layers().isEmpty()) {
      throw new GatunException(
          floats.path()
              + ": layer '"
              + floats.layers().keySet().iterator().next()
              + "': found a quantized weight, expected plain floats (requantize it)");
    }
    Map<String, QuantizedModule> modules = new LinkedHashMap<>();
    for (Tensor tensor : floats.plain().values()) {
      if (!tensor.name().endsWith(WEIGHT)) {
        continue;
      }
      String name = tensor.name().substring(0, tensor.name().length() - WEIGHT.length());
      Optional<Kind> kind = kind(floats, name, tensor);
      boolean norm = kind.equals(Optional.of(Kind.LAYER_NORM));
      boolean wanted = (norm ? settings.activations() : settings.weights()).isPresent();
      if (kind.isPresent() && wanted && settings.accepts(name)) {
        Optional<String> weights = norm ? Optional.empty() : settings.weights();
        modules.put(
            name,
            new QuantizedModule(
                name,
                kind.get(),
                new QuantizationMap.Module(weights, settings.activations()),
                Optional.of(tensor),
                1,
                1));
      }
    }
    if (modules.isEmpty()) {
      throw new GatunException(
          floats.path()
              + ": found no module to quantize, expected *.weight that globs let through");
    }
    return new QuantizedModel(floats, device, modules);
  }

  private static Optional<Kind> kind(Checkpoint floats, String name, Tensor weight) {
    if (weight.dtype().encoding().filter(Encoding::isPlain).isEmpty() || weight.elements() == 0) {
      return Optional.empty();
    }
    return switch (weight.shape().size()) {
      case 2 -> Fnmatch.any(EMBEDDINGS, name) ? Optional.empty() : Optional.of(Kind.LINEAR);
      case 4 -> Optional.of(Kind.CONV2D);
      case 1 -> {
        String last = name.substring(name.lastIndexOf('.') + 1);
        Tensor bias = floats.plain().get(name + ".bias");
        boolean norm =
            last.toLowerCase(Locale.ROOT).contains("norm")
                && bias != null
                && bias.shape().equals(weight.shape())
                && !floats.plain().containsKey(name + ".running_mean");
        yield norm ? Optional.of(Kind.LAYER_NORM) : Optional.empty();
      }
      default -> Optional.empty();
    };
  }

  /**
   * Takes a saved model up again: modules whose weights are codes are frozen, those with plain
   * weights are quantized as the map says.
   *
   * @param map what {@link #quantizationMap} gave, or quanto
   * @throws GatunException when a module of the map is not in the checkpoint, or is of another type
   */
  public static QuantizedModel requantize(
      Checkpoint checkpoint, QuantizationMap map, Device device) {
    Map<String, QuantizedModule> modules = new LinkedHashMap<>();
    map.modules().forEach((name, types) -> modules.put(name, module(checkpoint, name, types)));
    return new QuantizedModel(checkpoint, device, modules);
  }

  private static QuantizedModule module(
      Checkpoint checkpoint, String name, QuantizationMap.Module types) {
    float input = scale(checkpoint, name + INPUT);
    float output = scale(checkpoint, name + OUTPUT);
    QuantizedTensor codes = checkpoint.layers().get(name);
    if (codes != null) {
      String expected = types.weights().map(type -> "quanto." + type).orElse("plain floats");
      if (!codes.layout().name().equals(expected)) {
        throw new GatunException(
            checkpoint.path()
                + ": module '"
                + name
                + "': found "
                + codes.layout().name()
                + ", expected "
                + expected
                + " as the map says");
      }
      Kind kind = codes.shape().size() == 4 ? Kind.CONV2D : Kind.LINEAR;
      return new QuantizedModule(name, kind, types, Optional.empty(), input, output);
    }
    Tensor weight = checkpoint.plain().get(name + WEIGHT);
    Optional<Kind> kind = weight == null ? Optional.empty() : kind(checkpoint, name, weight);
    if (types.weights().isEmpty() && weight != null) {
      kind = Optional.of(Kind.LAYER_NORM);
    }
    if (weight == null || kind.isEmpty()) {
      throw new GatunException(
          checkpoint.path()
              + ": module '"
              + name
              + "': found no weight of it, expected the "
              + types.weights().orElse("plain")
              + " one that the map names");
    }
    return new QuantizedModule(name, kind.get(), types, Optional.of(weight), input, output);
  }

  private static float scale(Checkpoint checkpoint, String name) {
    Tensor scale = checkpoint.tensors().get(name);
    if (scale == null || scale.elements() != 1) {
      return 1;
    }
    return scale
        .dtype()
        .encoding()
        .filter(Encoding::isPlain)
        .map(type -> Numbers.get(type, scale.data(), 0))
        .orElse(1f);
  }

  /** The modules that are quantized, by name. */
  public Map<String, QuantizedModule> modules() {
    return Collections.unmodifiableMap(modules);
  }

  /**
   * A module.
   *
   * @throws GatunException when it is not quantized, or there is none of this name
   */
  public QuantizedModule module(String name) {
    QuantizedModule module = modules.get(name);
    if (module == null) {
      throw new GatunException(
          checkpoint.path() + ": no quantized module '" + name + "' among " + modules.size());
    }
    return module;
  }

  /** What the modules are quantized to, in quanto's words. */
  public QuantizationMap quantizationMap() {
    Map<String, QuantizationMap.Module> types = new LinkedHashMap<>();
    modules.forEach((name, module) -> types.put(name, module.types()));
    return new QuantizationMap(types);
  }

  /** Whether every weight is saved as codes. */
  public boolean frozen() {
    return frozen;
  }

  /** Has every weight saved as codes from now on. */
  public void freeze() {
    frozen = true;
  }

  /** quanto's calibration for the type that the activations have. */
  public Calibration calibration() {
    return modules.values().stream()
        .map(QuantizedModule::types)
        .flatMap(types -> types.activationEncoding().stream())
        .findFirst()
        .map(encoding -> new Calibration(Calibration.Settings.quanto(encoding)))
        .orElseThrow(
            () ->
                new GatunException(
                    checkpoint.path() + ": found no module with quantized activations"));
  }

  /** A linear layer that a calibration observes. */
  public Linear observed(String name, Calibration calibration) {
    try (Arena arena = Arena.ofShared()) {
      return calibration.linear(weight(name, arena), checkpoint.bias(name).orElse(null), device);
    }
  }

  /** Takes the scales of modules of this model over. */
  public void adopt(Map<String, Calibration.Scales> scales) {
    scales.forEach(
        (name, found) -> {
          QuantizedModule module = module(name);
          if (!module.types().activationEncoding().equals(Optional.of(found.encoding()))) {
            throw new GatunException(
                checkpoint.path()
                    + ": module '"
                    + name
                    + "': found scales of "
                    + found.encoding()
                    + ", expected "
                    + module.types().activations().orElse("none"));
          }
          modules.put(name, module.withScales(found.input(), found.output()));
        });
  }

  /**
   * A linear layer, packed: with static activations where the module has them, else in floats. A
   * layer that is not quantized is the checkpoint's own.
   */
  public Linear linear(String name) {
    QuantizedModule module = modules.get(name);
    if (module == null) {
      return checkpoint.linear(name, device);
    }
    return linear(
        name,
        module
            .types()
            .activationEncoding()
            .map(encoding -> encoding == Encoding.I8 ? Compute.I8_STATIC : Compute.F8)
            .orElse(Compute.F32));
  }

  /** The same with a compute type of its own. */
  public Linear linear(String name, Compute compute) {
    if (!modules.containsKey(name)) {
      return checkpoint.linear(name, compute, device);
    }
    try (Arena arena = Arena.ofShared()) {
      return Linear.of(weight(name, arena), checkpoint.bias(name).orElse(null), compute, device);
    }
  }

  /** A convolution, packed; its input is not rounded, its output is not either. */
  public Conv2d conv2d(String name, Conv2d.Geometry geometry) {
    if (!modules.containsKey(name)) {
      return checkpoint.conv2d(name, geometry, device);
    }
    try (Arena arena = Arena.ofShared()) {
      return Conv2d.of(
          weight(name, arena), checkpoint.bias(name).orElse(null), geometry, Compute.F32, device);
    }
  }

  /** The weight's codes, its activations as the module has them. */
  private QuantizedTensor weight(String name, Arena arena) {
    QuantizedModule module = module(name);
    QuantizedTensor codes;
    if (module.weight().isEmpty()) {
      codes = checkpoint.quantized(name);
    } else if (module.types().weights().isEmpty()) {
      throw new GatunException(
          checkpoint.path() + ": module '" + name + "': found a weight that is not quantized");
    } else {
      codes = QuantoModules.quantize(module, device.operations(), arena);
    }
    Map<String, Tensor> parts = new LinkedHashMap<>(codes.parts());
    parts.put(QuantizedTensor.INPUT_SCALE, number(name + INPUT, DType.F32, module.inputScale()));
    parts.put(QuantizedTensor.OUTPUT_SCALE, number(name + OUTPUT, DType.F32, module.outputScale()));
    return codes
        .with(codes.shape(), parts, codes.matrix(), codes.dtype())
        .withActivations(
            module
                .types()
                .activationEncoding()
                .map(encoding -> new StaticActivations(encoding, false, true)));
  }

  private static Tensor number(String name, DType type, float value) {
    MemorySegment data = MemorySegment.ofArray(new byte[type.bits() / 8]);
    Numbers.put(type.encoding().orElseThrow(), data, 0, value);
    return new Tensor(name, type, List.of(), data);
  }

  /**
   * Writes {@code model.safetensors} and {@code quantization_map.json}: what {@code
   * save_file(model.state_dict())} and {@code quantization_map(model)} give in quanto.
   *
   * @param directory is made when it is missing
   */
  public void save(Path directory) {
    try {
      Files.createDirectories(directory);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    Map<String, Tensor> scales = new LinkedHashMap<>();
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    Map<String, QuantizedModule> fresh = new LinkedHashMap<>(); // by the weight that they replace
    for (QuantizedModule module : modules.values()) {
      DType type = scaleType(module);
      for (Tensor scale :
          List.of(
              number(module.name() + INPUT, type, module.inputScale()),
              number(module.name() + OUTPUT, type, module.outputScale()))) {
        scales.put(scale.name(), scale);
        entries.add(SafetensorsWriter.Entry.of(scale));
      }
      if (frozen && module.weight().isPresent() && module.types().weights().isPresent()) {
        fresh.put(module.weight().get().name(), module);
        entries.addAll(QuantoModules.entries(module));
      }
    }
    List<Tensor> copied = new ArrayList<>();
    for (Tensor tensor : checkpoint.tensors().values()) {
      if (!scales.containsKey(tensor.name()) && !fresh.containsKey(tensor.name())) {
        copied.add(tensor);
        entries.add(SafetensorsWriter.Entry.of(tensor));
      }
    }
    try (SafetensorsWriter out =
        SafetensorsWriter.create(directory.resolve(WEIGHTS), entries, checkpoint.metadata())) {
      scales.values().forEach(scale -> out.write(scale.name(), scale.data()));
      copied.forEach(tensor -> Quantizer.copy(checkpoint, tensor, out));
      for (QuantizedModule module : fresh.values()) {
        try (Arena arena = Arena.ofShared()) {
          QuantoModules.tensors(module, device.operations(), arena)
              .forEach(tensor -> out.write(tensor.name(), tensor.data()));
        }
      }
      quantizationMap().write(directory.resolve(QuantizationMap.FILE));
      out.commit();
    }
  }

  /** The type of the weight before it was quantized. */
  private DType scaleType(QuantizedModule module) {
    return module
        .weight()
        .map(Tensor::dtype)
        .orElseGet(
            () ->
                DType.valueOf(
                    Objects.requireNonNull(checkpoint.layers().get(module.name())).dtype().name()));
  }
}
