package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.GatunException;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.PackedWeight;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.zip.CRC32C;

/**
 * The packed weights of a checkpoint, in a file beside it. Opening a layer maps its part of the
 * file: nothing is packed, copied or read.
 *
 * <pre>
 *   "GATUNPKF" | bytes of JSON, 64 bits | SHA-256 of the JSON, 32 bytes | 16 zeros | JSON | blocks
 * </pre>
 *
 * Little-endian; each block begins at a multiple of {@value #PAGE}. The JSON is {@code {form,
 * sources: [{file, size, modified, sample}], layers: {name: {offset, size, crc32c}}}}: the form
 * that the backend gave, what the checkpoint's files were like (modified in nanoseconds; sample: a
 * SHA-256 of their first and last 64 KiB), and where each layer's block lies. A file of another
 * form, of a checkpoint that has changed since, too short or with a changed table is refused. What
 * a block's header says is compared with the layer when it is mapped; its codes only by {@link
 * #verify()}. The file must not be cut short while it is in use; {@code gatun pack} replaces it as
 * a whole.
 */
public final class PackedFile implements AutoCloseable {
  /** What the name of a packed file ends with. */
  public static final String SUFFIX = ".gatun-packed";

  private static final byte[] MAGIC = {'G', 'A', 'T', 'U', 'N', 'P', 'K', 'F'};
  private static final int HEADER = 64;
  private static final int DIGEST = 32;
  private static final long PAGE = 4096;

  /** Where a block lies, and the sum of its bytes. */
  private record Block(long offset, long size, long crc) {}

  private final Path path;
  private final FileChannel channel;
  private final String form;
  private final Map<String, Block> blocks;

  private PackedFile(Path path, FileChannel channel, String form, Map<String, Block> blocks) {
    this.path = path;
    this.channel = channel;
    this.form = form;
    this.blocks = blocks;
  }

  /** Where the packed form of a checkpoint is looked for: beside it, or in its directory. */
  public static Path beside(Path checkpoint) {
    Path name = checkpoint.toAbsolutePath().normalize().getFileName();
    return Files.isDirectory(checkpoint) || name == null
        ? checkpoint.resolve("checkpoint" + SUFFIX)
        : checkpoint.resolveSibling(name + SUFFIX);
  }

  /**
   * What a run of {@link #write} did.
   *
   * @param packed layers in the file
   * @param left layers that are not, each with the reason
   * @param bytesBefore of the packed layers' parts
   * @param bytesAfter of their blocks
   */
  public record Written(
      List<String> packed, Map<String, String> left, long bytesBefore, long bytesAfter) {
    /** Copies. */
    public Written {
      packed = List.copyOf(packed);
      left = Collections.unmodifiableMap(new LinkedHashMap<>(left));
    }
  }

  /**
   * Packs every quantized layer that the backend takes.
   *
   * @param file what is written; it appears when it is whole
   * @throws GatunException when the backend's packed form cannot be kept, a layer does not hold
   *     together, or the file cannot be written
   */
  public static Written write(Checkpoint checkpoint, Backend backend, Path file) {
    String form =
        backend
            .packedForm()
            .orElseThrow(
                () ->
                    new GatunException(
                        "pack: found backend "
                            + backend.name()
                            + ", whose packed form cannot be kept, expected native"));
    ArrayNode sources = sources(checkpoint);
    List<String> packed = new ArrayList<>();
    Map<String, String> left = new LinkedHashMap<>();
    long before = 0;
    long after = 0;
    ObjectNode layers = Json.MAPPER.createObjectNode();
    try (OutputFile out = OutputFile.create(file)) {
      // The table's length is known when every block is; room for it is left by its largest form.
      long at = align(HEADER + tableRoom(checkpoint, sources));
      for (String name : checkpoint.layers().keySet()) {
        var weight = checkpoint.quantized(name);
        try (PackedWeight block = backend.pack(weight.matrix())) {
          MemorySegment bytes = backend.packedBytes(block);
          out.write(at, bytes);
          ObjectNode layer = layers.putObject(name);
          layer.put("offset", at).put("size", bytes.byteSize()).put("crc32c", crc(bytes));
          packed.add(name);
          before += weight.matrix().memory().values().stream().mapToLong(m -> m.byteSize()).sum();
          after += bytes.byteSize();
          at = align(at + bytes.byteSize());
        } catch (GatunException e) {
          left.put(name, String.valueOf(e.getMessage()));
        }
        checkpoint.release(weight);
      }
      ObjectNode table = Json.MAPPER.createObjectNode().put("form", form);
      table.set("sources", sources);
      table.set("layers", layers);
      byte[] json = Json.MAPPER.writeValueAsBytes(table);
      ByteBuffer header = ByteBuffer.allocate(HEADER).order(ByteOrder.LITTLE_ENDIAN);
      header.put(MAGIC).putLong(json.length).put(Sha256.of(json));
      out.write(0, MemorySegment.ofArray(header.array()));
      out.write(HEADER, MemorySegment.ofArray(json));
      if (!sources.equals(sources(checkpoint))) {
        throw Problem.file(checkpoint.path(), "files that changed while it was packed", "none");
      }
      out.commit();
    } catch (IOException e) {
      throw OutputFile.failed(file, e);
    }
    return new Written(packed, left, before, after);
  }

  private static long align(long position) {
    return (position + PAGE - 1) / PAGE * PAGE;
  }

  /** As many bytes as the table can have: three numbers of twenty digits a layer. */
  private static long tableRoom(Checkpoint checkpoint, ArrayNode sources) throws IOException {
    ObjectNode layers = Json.MAPPER.createObjectNode();
    for (String name : checkpoint.layers().keySet()) {
      layers.put(name, "x".repeat(128));
    }
    return Json.MAPPER.writeValueAsBytes(layers).length
        + Json.MAPPER.writeValueAsBytes(sources).length
        + 256L;
  }

  /** What the checkpoint's files are like now. */
  private static ArrayNode sources(Checkpoint checkpoint) {
    checkpoint.verifyFiles();
    ArrayNode sources = Json.MAPPER.createArrayNode();
    for (TensorFile file : checkpoint.containers()) {
      Path path = file.path();
      try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
        ObjectNode source = sources.addObject();
        source.put("file", String.valueOf(path.getFileName()));
        source.put("size", channel.size());
        source.put(
            "modified",
            Files.getLastModifiedTime(path).to(java.util.concurrent.TimeUnit.NANOSECONDS));
        source.put("sample", Sha256.hex(Sha256.ofEnds(channel)));
      } catch (IOException e) {
        throw MappedFile.unreadable(path, e);
      }
    }
    return sources;
  }

  private static long crc(MemorySegment bytes) {
    CRC32C crc = new CRC32C();
    for (long at = 0; at < bytes.byteSize(); at += 1 << 30) {
      crc.update(bytes.asSlice(at, Math.min(1 << 30, bytes.byteSize() - at)).asByteBuffer());
    }
    return crc.getValue();
  }

  /**
   * Opens the packed form of a checkpoint.
   *
   * @throws GatunException when it cannot be read, is damaged, or is not of the checkpoint as it is
   *     now
   */
  public static PackedFile open(Path file, Checkpoint checkpoint) {
    FileChannel channel = null;
    boolean done = false;
    try {
      channel = FileChannel.open(file, StandardOpenOption.READ);
      PackedFile packed = read(file, channel, checkpoint);
      done = true;
      return packed;
    } catch (IOException e) {
      throw MappedFile.unreadable(file, e);
    } finally {
      if (!done) {
        MappedFile.closeQuietly(channel);
      }
    }
  }

  private static PackedFile read(Path file, FileChannel channel, Checkpoint checkpoint)
      throws IOException {
    long size = channel.size();
    ByteBuffer header = ByteBuffer.allocate(HEADER).order(ByteOrder.LITTLE_ENDIAN);
    byte[] magic = new byte[MAGIC.length];
    byte[] digest = new byte[DIGEST];
    readFully(file, channel, header, 0);
    header.get(magic);
    long length = header.getLong();
    header.get(digest);
    if (!Arrays.equals(magic, MAGIC)) {
      throw Problem.file(file, "another file", "packed weights, which begin with GATUNPKF");
    }
    if (length < 2 || length > Json.LARGEST_HEADER || length > size - HEADER) {
      throw Problem.file(
          file, "a table of " + length + " bytes in " + size, "one that the file holds");
    }
    ByteBuffer json = ByteBuffer.allocate((int) length);
    readFully(file, channel, json, HEADER);
    if (!Arrays.equals(Sha256.of(json.array()), digest)) {
      throw Problem.file(file, "a table with another checksum", "the one that was written");
    }
    JsonNode table = Json.tree(json.array());
    if (!table.path("sources").equals(Json.tree(sources(checkpoint).toString()))) {
      throw Problem.file(
          file,
          "the packed form of other files " + table.path("sources"),
          "that of the checkpoint as it is now, " + sources(checkpoint) + "; pack it again");
    }
    Map<String, Block> blocks = new LinkedHashMap<>();
    for (Map.Entry<String, JsonNode> entry : table.path("layers").properties()) {
      JsonNode layer = entry.getValue();
      Block block =
          new Block(
              layer.path("offset").asLong(-1),
              layer.path("size").asLong(-1),
              layer.path("crc32c").asLong(-1));
      if (block.offset < HEADER
          || block.offset % PAGE != 0
          || block.size < 1
          || block.size > size - block.offset) {
        throw Problem.file(
            file,
            "layer "
                + Problem.quote(entry.getKey())
                + " at "
                + block.offset
                + " with "
                + block.size
                + " bytes",
            "a part of its " + size + " bytes; pack it again");
      }
      blocks.put(entry.getKey(), block);
    }
    return new PackedFile(file, channel, table.path("form").asText(), blocks);
  }

  private static void readFully(Path file, FileChannel channel, ByteBuffer into, long from)
      throws IOException {
    while (into.hasRemaining()) {
      if (channel.read(into, from + into.position()) < 0) {
        throw Problem.file(file, channel.size() + " bytes", "at least " + (from + into.capacity()));
      }
    }
    into.flip();
  }

  /** The file. */
  public Path path() {
    return path;
  }

  /** The layers whose packed form is here. */
  public List<String> layers() {
    return List.copyOf(blocks.keySet());
  }

  /**
   * A layer's packed weight, mapped.
   *
   * @return empty when it is not here, or not in the backend's form
   * @throws GatunException when the file has become shorter, or its block is not the layer's
   */
  Optional<PackedWeight> find(String layer, Backend backend, Matrix matrix) {
    Block block = blocks.get(layer);
    if (block == null || !backend.packedForm().equals(Optional.of(form))) {
      return Optional.empty();
    }
    Arena arena = Arena.ofShared();
    boolean done = false;
    try {
      PackedWeight packed = backend.adopt(matrix, map(block, arena), arena);
      done = true;
      return Optional.of(packed);
    } catch (GatunException e) {
      throw new GatunException(
          path + ": layer " + Problem.quote(layer) + ": " + e.getMessage() + "; pack it again", e);
    } finally {
      if (!done) {
        arena.close();
      }
    }
  }

  private MemorySegment map(Block block, Arena arena) {
    try {
      if (channel.size() < block.offset + block.size) { // the pages would not be there
        throw Problem.file(
            path, channel.size() + " bytes", "at least " + (block.offset + block.size));
      }
      return channel.map(FileChannel.MapMode.READ_ONLY, block.offset, block.size, arena);
    } catch (IOException e) {
      throw MappedFile.unreadable(path, e);
    }
  }

  /**
   * Reads every block and compares it with the sum that was taken when it was written.
   *
   * @throws GatunException when one differs
   */
  public void verify() {
    blocks.forEach(
        (layer, block) -> {
          try (Arena arena = Arena.ofConfined()) {
            long found = crc(map(block, arena));
            if (found != block.crc) {
              throw Problem.file(
                  path,
                  "layer " + Problem.quote(layer) + " with checksum " + found,
                  block.crc + "; pack it again");
            }
          }
        });
  }

  /** Closes the file; what was mapped from it stays. A second call does nothing. */
  @Override
  public void close() {
    try {
      channel.close();
    } catch (IOException e) {
      throw MappedFile.unreadable(path, e);
    }
  }
}
