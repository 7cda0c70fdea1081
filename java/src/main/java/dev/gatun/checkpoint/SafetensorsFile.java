package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.Map;
import java.util.Optional;

/** One safetensors file, mapped: {@code u64 header length | JSON header | data}. */
public final class SafetensorsFile implements TensorFile {
  private static final ValueLayout.OfLong U64 =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final MappedFile file;
  private final SafetensorsHeader header;

  private SafetensorsFile(MappedFile file, SafetensorsHeader header) {
    this.file = file;
    this.header = header;
  }

  /**
   * Maps and checks a file.
   *
   * @throws GatunException when it cannot be read or breaks a rule of the format: names file,
   *     tensor, found and expected
   */
  public static SafetensorsFile open(Path path) {
    return MappedFile.open(path, SafetensorsFile::read);
  }

  static SafetensorsFile read(MappedFile file) {
    MemorySegment mapped = file.bytes();
    if (mapped.byteSize() < Long.BYTES) {
      throw Problem.file(
          file.path(), mapped.byteSize() + " bytes", "a safetensors file of at least 8 bytes");
    }
    return new SafetensorsFile(file, header(file.path(), mapped));
  }

  @Override
  public Path path() {
    return file.path();
  }

  @Override
  public Map<String, Tensor> tensors() {
    return header.tensors();
  }

  /** {@code __metadata__}; empty when there is none. */
  @Override
  public Map<String, String> metadata() {
    return header.metadata();
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

  private static SafetensorsHeader header(Path path, MemorySegment mapped) {
    long headerLength = mapped.get(U64, 0);
    if (headerLength < 0 || headerLength > Json.LARGEST_HEADER) {
      throw Problem.file(
          path,
          "a header of " + Long.toUnsignedString(headerLength) + " bytes",
          "at most " + Json.LARGEST_HEADER);
    }
    if (headerLength > mapped.byteSize() - Long.BYTES) {
      throw Problem.file(
          path,
          "a header of " + headerLength + " bytes",
          "at most the "
              + (mapped.byteSize() - Long.BYTES)
              + " that the file has after its first 8");
    }
    byte[] json = mapped.asSlice(Long.BYTES, headerLength).toArray(ValueLayout.JAVA_BYTE);
    return SafetensorsHeader.parse(path, json, mapped.asSlice(Long.BYTES + headerLength));
  }
}
