package dev.gatun.quantize;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.GatunException;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.OutputFile;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Scaling;
import dev.gatun.quantize.config.PipelineQuantizationConfig;
import dev.gatun.quantize.config.QuantizationConfig;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * Quantizes components of a diffusers pipeline: a directory with {@code model_index.json} and a
 * folder for each component. The output is a pipeline of the same make; a quantized component's
 * {@code config.json} says how, and every file that stays as it is becomes a hard link, or a copy
 * where the file system has none. {@code model_index.json} is written last: a directory without it
 * is not finished, and the same run started again goes on where it stood.
 */
public final class PipelineQuantizer {
  /** The file that makes a directory a pipeline. */
  public static final String INDEX = "model_index.json";

  private static final String CONFIG = "config.json";
  private static final String DONE = ".quantized";
  private static final ObjectMapper JSON =
      new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  private final Path source;
  private final Path target;
  private final PipelineQuantizationConfig config;
  private final NameFilter filter;
  private final Optional<Scaling> scaling;
  private final Backend backend;
  private final int threads;
  private final ProgressListener progress;
  private final List<Path> marks = new ArrayList<>();

  private PipelineQuantizer(
      Path source,
      Path target,
      PipelineQuantizationConfig config,
      NameFilter filter,
      Optional<Scaling> scaling,
      Backend backend,
      int threads,
      ProgressListener progress) {
    this.source = source;
    this.target = target;
    this.config = config;
    this.filter = filter;
    this.scaling = scaling;
    this.backend = backend;
    this.threads = threads;
    this.progress = progress;
  }

  /** Whether a path is a pipeline's directory. */
  public static boolean isPipeline(Path path) {
    return Files.isRegularFile(path.resolve(INDEX));
  }

  /**
   * Quantizes a pipeline with the scales that the configurations say.
   *
   * @see #quantize(Path, Path, PipelineQuantizationConfig, NameFilter, Optional, Backend, int,
   *     ProgressListener)
   */
  public static Map<String, Report> quantize(
      Path source,
      Path target,
      PipelineQuantizationConfig config,
      NameFilter filter,
      Backend backend,
      int threads,
      ProgressListener progress) {
    return quantize(source, target, config, filter, Optional.empty(), backend, threads, progress);
  }

  /**
   * Quantizes a pipeline.
   *
   * @param source its directory
   * @param target a directory to make
   * @param config which components, and how each one
   * @param filter narrows which layers of those
   * @param scaling how scales and codes are chosen, instead of as the configurations say
   * @return what was done to each component that was quantized; those that an interrupted run had
   *     finished are left out
   * @throws GatunException when a component that is named is not there, or one cannot be quantized
   */
  public static Map<String, Report> quantize(
      Path source,
      Path target,
      PipelineQuantizationConfig config,
      NameFilter filter,
      Optional<Scaling> scaling,
      Backend backend,
      int threads,
      ProgressListener progress) {
    try {
      return new PipelineQuantizer(
              source, target, config, filter, scaling, backend, threads, progress)
          .run();
    } catch (FileSystemException e) {
      String why = e.getReason() == null ? e.getClass().getSimpleName() : e.getReason();
      throw new GatunException(e.getFile() + ": cannot be written (" + why + ")", e);
    } catch (IOException e) {
      throw new GatunException(target + ": cannot be written (" + e.getMessage() + ")", e);
    }
  }

  private Map<String, Report> run() throws IOException {
    if (Files.exists(target) && Files.isSameFile(source, target)) {
      throw new GatunException(target + ": found the input as output, expected another directory");
    }
    List<String> components = components();
    for (String name : config.components().orElse(List.of())) {
      if (!components.contains(name)) {
        throw new GatunException(
            source.resolve(INDEX)
                + ": found no component '"
                + name
                + "' with weights, expected one of "
                + components);
      }
    }
    Map<String, QuantizationConfig> wanted = new LinkedHashMap<>();
    for (String name : components) {
      config.of(name).ifPresent(how -> wanted.put(name, how));
    }
    Files.createDirectories(target);
    Map<String, Report> reports = new LinkedHashMap<>();
    for (Map.Entry<String, QuantizationConfig> entry : wanted.entrySet()) {
      component(entry.getKey(), entry.getValue())
          .ifPresent(report -> reports.put(entry.getKey(), report));
    }
    linkTheRest(wanted);
    link(source.resolve(INDEX), target.resolve(INDEX));
    for (Path mark : marks) {
      Files.deleteIfExists(mark);
    }
    return reports;
  }

  /** Folders with safetensors files that the index names. */
  private List<String> components() throws IOException {
    JsonNode index = QuantizationConfig.read(source.resolve(INDEX));
    List<String> names = new ArrayList<>();
    for (Map.Entry<String, JsonNode> entry : index.properties()) {
      Path folder = source.resolve(entry.getKey()).normalize();
      boolean own = source.normalize().equals(folder.getParent());
      if (entry.getValue().isArray() && own && Files.isDirectory(folder) && hasWeights(folder)) {
        names.add(entry.getKey());
      }
    }
    return names;
  }

  private static boolean hasWeights(Path folder) throws IOException {
    try (Stream<Path> files = Files.list(folder)) {
      return files.anyMatch(file -> file.toString().endsWith(".safetensors"));
    }
  }

  /** Empty when an interrupted run has finished it. */
  private Optional<Report> component(String name, QuantizationConfig how) throws IOException {
    Path folder = Files.createDirectories(target.resolve(name));
    Path mark = folder.resolve(DONE);
    QuantizePlan configured = QuantizePlan.of(how, filter);
    QuantizePlan plan = scaling.map(configured::with).orElse(configured);
    try (Checkpoint checkpoint = Checkpoint.open(source.resolve(name))) {
      Path output = folder.resolve(fileName(checkpoint));
      String job = Quantizer.job(checkpoint, plan, Optional.empty());
      marks.add(mark);
      if (Files.exists(mark) && Files.exists(output) && Files.readString(mark).equals(job)) {
        return Optional.empty();
      }
      Report report = Quantizer.quantize(checkpoint, output, plan, backend, threads, progress);
      writeConfig(name, how);
      write(mark, job);
      return Optional.of(report);
    } catch (GatunException e) {
      throw new GatunException("component '" + name + "': " + e.getMessage(), e);
    }
  }

  /** diffusers and transformers look for different names. */
  private static String fileName(Checkpoint checkpoint) {
    String first = String.valueOf(checkpoint.files().getFirst().getFileName());
    return first.startsWith("diffusion_pytorch_model")
        ? "diffusion_pytorch_model.safetensors"
        : "model.safetensors";
  }

  private void writeConfig(String name, QuantizationConfig how) throws IOException {
    Path original = source.resolve(name).resolve(CONFIG);
    ObjectNode json =
        Files.exists(original) && QuantizationConfig.read(original) instanceof ObjectNode object
            ? object
            : JSON.createObjectNode();
    json.set(QuantizationConfig.KEY, how.toJson());
    write(target.resolve(name).resolve(CONFIG), JSON.writeValueAsString(json) + "\n");
  }

  private static void write(Path path, String text) {
    try (OutputFile file = OutputFile.create(path)) {
      file.write(0, MemorySegment.ofArray(text.getBytes(StandardCharsets.UTF_8)));
      file.commit();
    }
  }

  private void linkTheRest(Map<String, QuantizationConfig> quantized) throws IOException {
    try (Stream<Path> files = Files.walk(source)) {
      for (Path file : files.filter(Files::isRegularFile).toList()) {
        Path relative = source.relativize(file);
        boolean replaced =
            relative.getNameCount() == 2
                && quantized.containsKey(relative.getName(0).toString())
                && isReplaced(relative.getName(1).toString());
        if (!replaced && !relative.toString().equals(INDEX)) {
          link(file, target.resolve(relative.toString()));
        }
      }
    }
  }

  private static boolean isReplaced(String name) {
    return name.equals(CONFIG)
        || name.endsWith(".safetensors")
        || name.endsWith(".safetensors.index.json");
  }

  private static void link(Path file, Path to) throws IOException {
    Path parent = to.getParent();
    if (parent != null) {
      Files.createDirectories(parent);
    }
    if (Files.exists(to) && Files.isSameFile(file, to)) {
      return;
    }
    Files.deleteIfExists(to);
    try {
      Files.createLink(to, file.toRealPath());
    } catch (FileAlreadyExistsException e) {
      throw e;
    } catch (IOException | UnsupportedOperationException e) {
      Files.copy(file, to);
    }
  }
}
