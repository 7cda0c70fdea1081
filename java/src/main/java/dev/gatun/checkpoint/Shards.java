package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * The files that make up one checkpoint: a single safetensors or GGUF file, the shards that an
 * index names, or the parts of a split GGUF file.
 */
final class Shards implements AutoCloseable {
  private static final String SUFFIX = ".safetensors";
  private static final String INDEX_SUFFIX = ".safetensors.index.json";

  /**
   * What a directory is opened by, first match first; then the only index, then the only
   * safetensors file.
   */
  private static final List<String> USUAL_NAMES =
      List.of(
          "model.safetensors",
          "diffusion_pytorch_model.safetensors",
          "model" + INDEX_SUFFIX,
          "diffusion_pytorch_model" + INDEX_SUFFIX);

  private final Path file;
  private final Arena arena = Arena.ofShared();
  private final List<TensorFile> files = new ArrayList<>();
  private final Map<String, Tensor> tensors = new LinkedHashMap<>();
  private final Map<String, TensorFile> owners = new LinkedHashMap<>();
  private final Map<String, String> metadata = new LinkedHashMap<>();

  private Shards(Path file) {
    this.file = file;
  }

  /** Opens a file, an index, or the directory that holds one. */
  static Shards open(Path path) {
    Path file = Files.isDirectory(path) ? inDirectory(path) : path;
    Shards shards = new Shards(file);
    boolean done = false;
    try {
      if (file.toString().endsWith(".json")) {
        shards.openIndex();
      } else {
        shards.addWithParts(TensorFile.open(file));
      }
      done = true;
      return shards;
    } finally {
      if (!done) {
        shards.close();
      }
    }
  }

  /** Whether a directory holds anything that {@link #open} could open. */
  static boolean isModel(Path directory) {
    return Files.isDirectory(directory)
        && (!endingWith(directory, SUFFIX).isEmpty()
            || !endingWith(directory, INDEX_SUFFIX).isEmpty()
            || !endingWith(directory, GgufFile.SUFFIX).isEmpty());
  }

  /** The file or index that was opened. */
  Path file() {
    return file;
  }

  /** The directory that it lies in. */
  Path directory() {
    Path parent = file.toAbsolutePath().getParent();
    return parent == null ? file.toAbsolutePath() : parent;
  }

  List<TensorFile> files() {
    return files;
  }

  Map<String, Tensor> tensors() {
    return Collections.unmodifiableMap(tensors);
  }

  Map<String, String> metadata() {
    return Collections.unmodifiableMap(metadata);
  }

  /** The file that holds a tensor. */
  Path fileOf(String tensor) {
    TensorFile owner = owners.get(tensor);
    return owner == null ? file : owner.path();
  }

  /** Memory for what is made of the tensors; ends with the files. */
  Arena arena() {
    return arena;
  }

  /** Checks that no file has become shorter since it was mapped. */
  void verifyLengths() {
    files.forEach(TensorFile::verifyLength);
  }

  @Override
  public void close() {
    files.forEach(TensorFile::close);
    if (arena.scope().isAlive()) {
      arena.close();
    }
  }

  private static Path inDirectory(Path directory) {
    for (String name : USUAL_NAMES) {
      Path candidate = directory.resolve(name);
      if (Files.isRegularFile(candidate)) {
        return candidate;
      }
    }
    for (String suffix : List.of(INDEX_SUFFIX, SUFFIX, GgufFile.SUFFIX)) {
      List<Path> found =
          endingWith(directory, suffix).stream().filter(p -> !GgufSplit.isLaterPart(p)).toList();
      if (found.size() == 1) {
        return found.get(0);
      }
      if (found.size() > 1) {
        throw Problem.file(
            directory,
            found.size()
                + " files *"
                + suffix
                + " ("
                + found.get(0).getFileName()
                + ", "
                + found.get(1).getFileName()
                + " …)",
            "one of " + USUAL_NAMES + " or a single one");
      }
    }
    throw Problem.file(
        directory,
        "no *.safetensors",
        "one of " + USUAL_NAMES + " or a single *.safetensors or *.gguf");
  }

  private static List<Path> endingWith(Path directory, String suffix) {
    try (Stream<Path> list = Files.list(directory)) {
      return list.filter(p -> p.getFileName().toString().endsWith(suffix)).sorted().toList();
    } catch (IOException e) {
      throw MappedFile.unreadable(directory, e);
    }
  }

  private void openIndex() {
    JsonNode index = Json.file(file);
    if (index.isMissingNode()) {
      throw new GatunException(file + ": found no such file, expected a shard index");
    }
    JsonNode map = index.path("weight_map");
    if (!map.isObject()) {
      throw Problem.file(file, "no object 'weight_map'", "a shard index with one");
    }
    Map<String, List<String>> tensorsOf = new LinkedHashMap<>();
    for (Map.Entry<String, JsonNode> entry : map.properties()) {
      String shard = shardName(entry.getKey(), entry.getValue());
      tensorsOf.computeIfAbsent(shard, s -> new ArrayList<>()).add(entry.getKey());
    }
    for (Map.Entry<String, List<String>> entry : tensorsOf.entrySet()) {
      Path shard = file.resolveSibling(entry.getKey());
      if (!Files.isRegularFile(shard)) {
        throw Problem.tensor(
            file, entry.getValue().get(0), "no shard " + shard, "that file, which the index names");
      }
      TensorFile opened = TensorFile.open(shard);
      add(opened, map);
      for (String name : entry.getValue()) {
        if (!opened.tensors().containsKey(name)) {
          throw Problem.tensor(
              file, name, "no such tensor in " + shard, "it there, as the index says");
        }
      }
    }
  }

  private String shardName(String tensor, JsonNode value) {
    String name = value.isTextual() ? value.asText() : "";
    boolean plain =
        name.endsWith(SUFFIX)
            && name.indexOf('/') < 0
            && name.indexOf('\\') < 0
            && name.indexOf('\0') < 0;
    if (!plain) {
      throw Problem.tensor(
          file,
          tensor,
          "shard " + Problem.quote(value.isTextual() ? name : value.toString()),
          "a plain file name that ends in " + SUFFIX + ", in the index's own directory");
    }
    return name;
  }

  /** Adds a file, and the other parts of the split file that it is one of. */
  private void addWithParts(TensorFile opened) {
    if (!(opened instanceof GgufFile gguf)) {
      add(opened, null);
      return;
    }
    List<Path> parts;
    try {
      parts = GgufSplit.parts(gguf);
    } catch (GatunException e) {
      opened.close();
      throw e;
    }
    for (Path part : parts) {
      if (part.equals(opened.path())) {
        add(opened, null);
      } else {
        add(TensorFile.open(part), null);
      }
    }
    GgufSplit.check(files);
  }

  /** Adds a file's tensors; where two shards hold the same name, the index decides. */
  private void add(TensorFile opened, @Nullable JsonNode index) {
    files.add(opened);
    metadata.putAll(opened.metadata());
    opened
        .tensors()
        .forEach(
            (name, tensor) -> {
              String listed = index == null ? "" : index.path(name).asText("");
              String own = opened.path().getFileName().toString();
              if (!listed.isEmpty() && !listed.equals(own)) {
                return;
              }
              TensorFile other = owners.put(name, opened);
              if (other != null) {
                throw Problem.tensor(
                    opened.path(),
                    name,
                    "the same name in " + other.path(),
                    "it in one shard only");
              }
              tensors.put(name, tensor);
            });
  }
}
