package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/**
 * One GGUF file of version 2 or 3, mapped: {@code "GGUF" | version | counts | metadata | tensor
 * infos | aligned data}. Shapes are outermost first, as everywhere here: the reverse of ggml's
 * order, so that a weight is [N, K]. Source: ggml's gguf.cpp.
 */
public final class GgufFile implements TensorFile {
  static final int MAGIC = 0x46554747;
  static final String SUFFIX = ".gguf";
  static final String ALIGNMENT = "general.alignment";
  static final long DEFAULT_ALIGNMENT = 32;

  private static final ValueLayout.OfInt U32 =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final MappedFile file;
  private final GgufHeader header;

  private GgufFile(MappedFile file, GgufHeader header) {
    this.file = file;
    this.header = header;
  }

  /**
   * Maps and checks a file.
   *
   * @throws GatunException when it cannot be read or breaks a rule of the format: names file,
   *     tensor, found and expected
   */
  public static GgufFile open(Path path) {
    return MappedFile.open(path, GgufFile::read);
  }

  /** Whether the first bytes are GGUF's, or the name says that they should be. */
  static boolean isGguf(MappedFile file) {
    MemorySegment bytes = file.bytes();
    return (bytes.byteSize() >= Integer.BYTES && bytes.get(U32, 0) == MAGIC)
        || file.path().toString().endsWith(SUFFIX);
  }

  static GgufFile read(MappedFile file) {
    return new GgufFile(file, GgufHeader.parse(file.path(), file.bytes()));
  }

  @Override
  public Path path() {
    return file.path();
  }

  @Override
  public Map<String, Tensor> tensors() {
    return header.tensors();
  }

  /** The metadata by key, in file order. The values end with {@link #close()}. */
  public Map<String, GgufValue> values() {
    return header.values();
  }

  /** The metadata as text; of an array, the first elements and the number of all. */
  @Override
  public Map<String, String> metadata() {
    Map<String, String> texts = new LinkedHashMap<>();
    header.values().forEach((key, value) -> texts.put(key, value.text()));
    return texts;
  }

  @Override
  public Optional<MemorySegment> again(MemorySegment part, Arena arena) {
    return file.again(part, arena);
  }

  @Override
  public boolean holds(MemorySegment part) {
    return file.holds(part);
  }

  @Override
  public void verifyLength() {
    file.verifyLength();
  }

  @Override
  public void close() {
    file.close();
  }
}
