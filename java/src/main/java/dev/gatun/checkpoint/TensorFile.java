package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;

/**
 * One file of tensors, mapped: safetensors or GGUF. Every rule of the container is checked when it
 * is opened; no tensor is read into the heap. Files may be larger than 2 GiB and tensors need not
 * be aligned.
 *
 * <p>A file that is cut short by another process while it is mapped cannot crash the JVM through
 * Java code (the access throws {@link InternalError}); {@link #verifyLength()} is called before
 * native code is handed any of it.
 */
public sealed interface TensorFile extends AutoCloseable permits SafetensorsFile, GgufFile {
  /**
   * Maps and checks a file of either container, told apart by its first bytes.
   *
   * @throws GatunException when it cannot be read or breaks a rule of the container: names file,
   *     tensor, found and expected
   */
  static TensorFile open(Path path) {
    return MappedFile.open(
        path, file -> GgufFile.isGguf(file) ? GgufFile.read(file) : SafetensorsFile.read(file));
  }

  /** The file's path as it was given. */
  Path path();

  /** Every tensor by name, in file order. The data are read-only and end with {@link #close()}. */
  Map<String, Tensor> tensors();

  /** The container's metadata as text; empty when there is none. */
  Map<String, String> metadata();

  /**
   * Checks that the file is still as long as when it was mapped.
   *
   * @throws GatunException when it is shorter: native code must not touch it any more
   */
  void verifyLength();

  /**
   * The same tensor, or a part of it, mapped once more: its pages count as this process's memory
   * until the arena ends.
   *
   * @param part of the data of one of {@link #tensors()}; empty for other memory
   */
  Optional<MemorySegment> again(MemorySegment part, Arena arena);

  /** Whether these bytes are the file's as it was mapped. */
  boolean holds(MemorySegment part);

  /**
   * Unmaps the file. A second call does nothing; using a tensor afterwards is an {@link
   * IllegalStateException}.
   */
  @Override
  void close();
}
