package dev.gatun.checkpoint;

import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The JSON header of a safetensors file, checked against the data that it describes.
 *
 * @param tensors by name, in the order of their bytes
 * @param metadata {@code __metadata__}
 */
record SafetensorsHeader(Map<String, Tensor> tensors, Map<String, String> metadata) {
  private static final String METADATA = "__metadata__";

  /** The types that the format knows. */
  private static final List<DType> DTYPES =
      Arrays.stream(DType.values()).filter(dtype -> !dtype.isBlock()).toList();

  private record Entry(String name, DType dtype, List<Long> shape, long begin, long end) {}

  /** Parses and checks a header; {@code data} is everything after it. */
  static SafetensorsHeader parse(Path path, byte[] json, MemorySegment data) {
    List<Entry> entries = new ArrayList<>();
    Map<String, String> metadata = new LinkedHashMap<>();
    try (JsonParser parser = Json.parser(json)) {
      new Reader(path, parser).document(entries, metadata);
    } catch (IOException e) {
      throw new GatunException(
          path + ": header: found " + Json.reason(e) + ", expected a safetensors header", e);
    }
    entries.sort(Comparator.comparingLong(Entry::begin).thenComparingLong(Entry::end));
    Map<String, Tensor> tensors = new LinkedHashMap<>();
    long position = 0;
    for (Entry entry : entries) {
      check(path, entry, position, data.byteSize());
      position = entry.end;
      MemorySegment bytes = data.asSlice(entry.begin, entry.end - entry.begin);
      tensors.put(entry.name, new Tensor(entry.name, entry.dtype, entry.shape, bytes));
    }
    if (position != data.byteSize()) {
      throw Problem.file(
          path, data.byteSize() + " bytes of data", position + ", where the last tensor ends");
    }
    return new SafetensorsHeader(
        Collections.unmodifiableMap(tensors), Collections.unmodifiableMap(metadata));
  }

  private static void check(Path path, Entry entry, long position, long dataLength) {
    if (entry.begin != position) {
      throw Problem.tensor(
          path,
          entry.name,
          "data_offsets begin " + entry.begin,
          position + ", the end of the tensor before it (no holes, no overlaps)");
    }
    if (entry.end < entry.begin) {
      throw Problem.tensor(
          path,
          entry.name,
          "data_offsets [" + entry.begin + ", " + entry.end + "]",
          "an end not before the begin");
    }
    if (entry.end > dataLength) {
      throw Problem.tensor(
          path,
          entry.name,
          "data_offsets end " + entry.end,
          "at most the " + dataLength + " bytes of data in the file");
    }
    long bytes = byteSize(path, entry);
    if (entry.end - entry.begin != bytes) {
      throw Problem.tensor(
          path,
          entry.name,
          (entry.end - entry.begin) + " bytes",
          bytes + " for " + entry.dtype + " " + entry.shape);
    }
  }

  private static long byteSize(Path path, Entry entry) {
    long bits;
    try {
      long elements = 1;
      for (long size : entry.shape) {
        elements = Math.multiplyExact(elements, size);
      }
      bits = Math.multiplyExact(elements, (long) entry.dtype.bits());
    } catch (ArithmeticException e) {
      throw Problem.tensor(path, entry.name, "shape " + entry.shape, "a size that fits in 64 bits");
    }
    if (bits % 8 != 0) {
      throw Problem.tensor(
          path,
          entry.name,
          entry.dtype + " " + entry.shape + " of " + bits + " bits",
          "a multiple of 8 bits");
    }
    return bits / 8;
  }

  /**
   * Walks the header's tokens; what is not as the format says ends in an exception with one line.
   */
  private record Reader(Path path, JsonParser parser) {
    void document(List<Entry> entries, Map<String, String> metadata) throws IOException {
      if (parser.nextToken() != JsonToken.START_OBJECT) {
        throw Problem.file(path, "a header that is no JSON object", "a JSON object");
      }
      while (parser.nextToken() != JsonToken.END_OBJECT) {
        String name = parser.currentName();
        parser.nextToken();
        if (name.equals(METADATA)) {
          metadata(metadata);
        } else {
          entries.add(entry(name));
        }
      }
      if (parser.nextToken() != null) {
        throw Problem.file(path, "more after the header's JSON object", "spaces only");
      }
    }

    private void metadata(Map<String, String> metadata) throws IOException {
      expect(METADATA, METADATA, JsonToken.START_OBJECT, "an object of strings");
      while (parser.nextToken() != JsonToken.END_OBJECT) {
        String key = parser.currentName();
        parser.nextToken();
        expect(METADATA, key, JsonToken.VALUE_STRING, "a string");
        metadata.put(key, parser.getText());
      }
    }

    private Entry entry(String name) throws IOException {
      expect(name, "entry", JsonToken.START_OBJECT, "an object with dtype, shape and data_offsets");
      DType dtype = null;
      List<Long> shape = null;
      List<Long> offsets = null;
      while (parser.nextToken() != JsonToken.END_OBJECT) {
        String field = parser.currentName();
        parser.nextToken();
        switch (field) {
          case "dtype" -> dtype = dtype(name);
          case "shape" -> shape = sizes(name, field);
          case "data_offsets" -> offsets = sizes(name, field);
          default -> parser.skipChildren(); // the reference reader ignores what it does not know
        }
      }
      List<Long> range = present(name, "data_offsets", offsets);
      if (range.size() != 2) {
        throw Problem.tensor(path, name, range.size() + " data_offsets", "2: begin and end");
      }
      return new Entry(
          name,
          present(name, "dtype", dtype),
          present(name, "shape", shape),
          range.get(0),
          range.get(1));
    }

    private DType dtype(String name) throws IOException {
      expect(name, "dtype", JsonToken.VALUE_STRING, "a string");
      String text = parser.getText();
      for (DType dtype : DTYPES) {
        if (dtype.name().equals(text)) {
          return dtype;
        }
      }
      throw Problem.tensor(path, name, "dtype " + Problem.quote(text), "one of " + DTYPES);
    }

    private List<Long> sizes(String name, String field) throws IOException {
      expect(name, field, JsonToken.START_ARRAY, "an array of whole numbers");
      List<Long> sizes = new ArrayList<>();
      while (parser.nextToken() != JsonToken.END_ARRAY) {
        expect(name, field, JsonToken.VALUE_NUMBER_INT, "whole numbers");
        if (parser.getNumberType() == JsonParser.NumberType.BIG_INTEGER
            || parser.getLongValue() < 0) {
          throw Problem.tensor(
              path, name, field + " with " + Problem.quote(parser.getText()), "0 to 2^63-1");
        }
        sizes.add(parser.getLongValue());
      }
      return List.copyOf(sizes);
    }

    private <T> T present(String name, String field, @Nullable T value) {
      if (value == null) {
        throw Problem.tensor(path, name, "no " + field, "dtype, shape and data_offsets");
      }
      return value;
    }

    private void expect(String name, String field, JsonToken token, String expected) {
      JsonToken found = parser.currentToken();
      if (found != token) {
        throw Problem.tensor(path, name, found + " as " + Problem.quote(field), expected);
      }
    }
  }
}
