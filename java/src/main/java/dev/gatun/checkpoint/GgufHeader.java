package dev.gatun.checkpoint;

import dev.gatun.Tensor;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The head of a GGUF file, checked against the data that it describes.
 *
 * @param tensors by name, in the order of their bytes
 * @param values the metadata by key, in file order
 */
record GgufHeader(Map<String, Tensor> tensors, Map<String, GgufValue> values) {
  /** More pairs or tensors than any model has; a bound on what a hostile file can make us keep. */
  private static final long MOST_ENTRIES = 1 << 20;

  private static final int MOST_DIMENSIONS = 4;

  /** ggml's limit on tensor names, in bytes. */
  static final int LONGEST_NAME = 63;

  /** GGUF's limit on keys, in bytes. */
  private static final int LONGEST_KEY = 65535;

  /** The least bytes that a pair takes: an empty key, a type and a byte. */
  private static final long SMALLEST_PAIR = 13;

  /** The least bytes that a tensor's description takes: an empty name, no dimension. */
  private static final long SMALLEST_INFO = 24;

  private static final GgufValue.Type[] TYPES = GgufValue.Type.values();

  private record Info(String name, DType dtype, List<Long> shape, long offset) {}

  static GgufHeader parse(Path path, MemorySegment bytes) {
    return new Reader(path, bytes, new GgufCursor(path, bytes)).read();
  }

  private record Reader(Path path, MemorySegment bytes, GgufCursor cursor) {
    GgufHeader read() {
      version();
      long tensorCount = count("tensors", SMALLEST_INFO);
      long pairCount = count("metadata pairs", SMALLEST_PAIR);
      Map<String, GgufValue> values = new LinkedHashMap<>();
      for (long i = 0; i < pairCount; i++) {
        String key = cursor.name("key " + i + " of the metadata", LONGEST_KEY);
        if (values.put(key, value(key)) != null) {
          throw Problem.file(path, "metadata key " + Problem.quote(key) + " twice", "it once");
        }
      }
      List<Info> infos = new ArrayList<>();
      for (long i = 0; i < tensorCount; i++) {
        infos.add(info(i));
      }
      return new GgufHeader(
          Collections.unmodifiableMap(tensors(infos, alignment(values))),
          Collections.unmodifiableMap(values));
    }

    private void version() {
      if (cursor.remaining() < Integer.BYTES || cursor.u32("the magic") != GgufFile.MAGIC) {
        throw Problem.file(path, "no \"GGUF\" in the first 4 bytes", "a GGUF file");
      }
      int version = cursor.u32("the version");
      if (version == 2 || version == 3) {
        return;
      }
      if ((version & 0xFFFF) == 0 && version != 0) {
        throw Problem.file(path, "a big-endian GGUF file", "a little-endian one");
      }
      throw Problem.file(
          path, "GGUF version " + Integer.toUnsignedString(version), "version 2 or 3");
    }

    private long count(String what, long smallest) {
      long count = cursor.u64("the number of " + what);
      if (count < 0 || count > MOST_ENTRIES || count > cursor.remaining() / smallest) {
        throw Problem.file(
            path,
            Long.toUnsignedString(count) + " " + what,
            "at most " + Math.min(MOST_ENTRIES, cursor.remaining() / smallest) + " in this file");
      }
      return count;
    }

    private GgufValue value(String key) {
      String what = "metadata " + Problem.quote(key);
      GgufValue.Type type = type(what);
      if (type != GgufValue.Type.ARRAY) {
        return new GgufValue(type, type, 1, elements(what, type, 1));
      }
      GgufValue.Type element = type(what);
      if (element == GgufValue.Type.ARRAY) {
        throw Problem.file(path, what + " that is an array of arrays", "numbers or strings in it");
      }
      long count = cursor.u64(what);
      long smallest = element == GgufValue.Type.STRING ? Long.BYTES : element.bytes();
      if (count < 0 || count > cursor.remaining() / smallest) {
        throw Problem.file(
            path,
            what + " of " + Long.toUnsignedString(count) + " elements",
            "at most " + cursor.remaining() / smallest + ", which the rest of the file can hold");
      }
      return new GgufValue(type, element, count, elements(what, element, count));
    }

    private GgufValue.Type type(String what) {
      int id = cursor.u32(what);
      for (GgufValue.Type type : TYPES) {
        if (type.id() == id) {
          return type;
        }
      }
      throw Problem.file(
          path,
          what + " of type " + Integer.toUnsignedString(id),
          "a type of 0 to " + (TYPES.length - 1));
    }

    private MemorySegment elements(String what, GgufValue.Type type, long count) {
      if (type != GgufValue.Type.STRING) {
        return cursor.bytes(what, count * type.bytes());
      }
      long start = cursor.position();
      for (long i = 0; i < count; i++) {
        cursor.bytes(what, cursor.length(what));
      }
      return bytes.asSlice(start, cursor.position() - start);
    }

    private long alignment(Map<String, GgufValue> values) {
      GgufValue value = values.get(GgufFile.ALIGNMENT);
      if (value == null) {
        return GgufFile.DEFAULT_ALIGNMENT;
      }
      long alignment = value.type() == GgufValue.Type.U32 ? value.whole().orElse(0) : 0;
      if (Long.bitCount(alignment) != 1) {
        throw Problem.file(
            path,
            GgufFile.ALIGNMENT + " " + value.text() + " of type " + value.type(),
            "a power of 2 of type U32");
      }
      return alignment;
    }

    private Info info(long index) {
      String name = cursor.name("the name of tensor " + index, LONGEST_NAME);
      String what = "tensor " + Problem.quote(name);
      int dimensions = cursor.u32(what);
      if (dimensions < 0 || dimensions > MOST_DIMENSIONS) {
        throw Problem.tensor(
            path,
            name,
            Integer.toUnsignedString(dimensions) + " dimensions",
            "at most " + MOST_DIMENSIONS);
      }
      List<Long> shape = new ArrayList<>();
      for (int i = 0; i < dimensions; i++) {
        long size = cursor.u64(what);
        if (size < 0) {
          throw Problem.tensor(
              path, name, "size " + Long.toUnsignedString(size), "a size below 2^63");
        }
        shape.addFirst(size);
      }
      int id = cursor.u32(what);
      DType dtype =
          GgufTypes.of(id)
              .orElseThrow(
                  () ->
                      Problem.tensor(
                          path, name, "type " + Integer.toUnsignedString(id), "a type of ggml's"));
      return new Info(name, dtype, List.copyOf(shape), cursor.u64(what));
    }

    private Map<String, Tensor> tensors(List<Info> infos, long alignment) {
      Map<String, Tensor> tensors = new LinkedHashMap<>();
      long start = align(cursor.position(), alignment);
      MemorySegment data = bytes.asSlice(Math.min(start, bytes.byteSize()));
      long position = 0;
      for (Info info : infos) {
        long size = byteSize(info);
        if (info.offset != position) {
          throw Problem.tensor(
              path,
              info.name,
              "offset " + Long.toUnsignedString(info.offset),
              position + ", the aligned end of the tensor before it");
        }
        long left = Math.max(0, data.byteSize() - position); // the last padding may be missing
        if (size > left) {
          throw Problem.tensor(
              path,
              info.name,
              left + " bytes of data",
              size + " for " + info.dtype + " " + info.shape);
        }
        MemorySegment own = data.asSlice(Math.min(position, data.byteSize()), size);
        Tensor tensor = new Tensor(info.name, info.dtype, info.shape, own);
        if (tensors.put(info.name, tensor) != null) {
          throw Problem.tensor(path, info.name, "two tensors of this name", "one");
        }
        position = align(position + size, alignment);
      }
      return tensors;
    }

    private long byteSize(Info info) {
      List<Long> shape = info.shape;
      long last = shape.isEmpty() ? 1 : shape.getLast();
      if (last % info.dtype.blockElements() != 0) {
        throw Problem.tensor(
            path,
            info.name,
            info.dtype + " rows of " + last + " elements",
            "a multiple of the block's " + info.dtype.blockElements());
      }
      try {
        return info.dtype.byteSize(shape);
      } catch (ArithmeticException e) {
        throw Problem.tensor(path, info.name, "shape " + shape, "a size that fits in 64 bits");
      }
    }

    private static long align(long position, long alignment) {
      return position + alignment - 1 & -alignment;
    }
  }
}
