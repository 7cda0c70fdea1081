package dev.gatun.checkpoint;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * One value of a GGUF file's metadata, left where it lies in the file: a list of tokens of any
 * length costs no heap.
 *
 * @param type of the value
 * @param element of an array's elements; the same as {@code type} for a single value
 * @param count of an array's elements; 1 for a single value
 * @param data the value's bytes as they stand in the file after its type; of an array, those after
 *     its element type and count
 */
public record GgufValue(Type type, Type element, long count, MemorySegment data) {
  /** The types of values. */
  public enum Type {
    U8(0, 1),
    I8(1, 1),
    U16(2, 2),
    I16(3, 2),
    U32(4, 4),
    I32(5, 4),
    F32(6, 4),
    BOOL(7, 1),
    STRING(8, 0),
    ARRAY(9, 0),
    U64(10, 8),
    I64(11, 8),
    F64(12, 8);

    private final int id;
    private final int bytes;

    Type(int id, int bytes) {
      this.id = id;
      this.bytes = bytes;
    }

    /** The type's number in a file. */
    public int id() {
      return id;
    }

    /** Bytes of a number; 0 for strings and arrays. */
    public int bytes() {
      return bytes;
    }
  }

  /** How many elements of an array are shown. */
  private static final int SHOWN = 8;

  /** The longest string that is shown whole, in bytes. */
  private static final long LONGEST_TEXT = 1 << 20;

  private static final ValueLayout.OfLong U64 =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt U32 =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort U16 =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** A whole number of type U32. */
  public static GgufValue u32(long value) {
    MemorySegment data = MemorySegment.ofArray(new byte[Integer.BYTES]);
    data.set(U32, 0, (int) value);
    return new GgufValue(Type.U32, Type.U32, 1, data);
  }

  /** A string. */
  public static GgufValue string(String text) {
    byte[] utf8 = text.getBytes(StandardCharsets.UTF_8);
    MemorySegment data = MemorySegment.ofArray(new byte[Long.BYTES + utf8.length]);
    data.set(U64, 0, utf8.length);
    MemorySegment.copy(utf8, 0, data, ValueLayout.JAVA_BYTE, Long.BYTES, utf8.length);
    return new GgufValue(Type.STRING, Type.STRING, 1, data);
  }

  /** The value as a whole number, when it is a single one. */
  public OptionalLong whole() {
    return switch (type) {
      case U8, I8, U16, I16, U32, I32, U64, I64, BOOL -> OptionalLong.of(whole(type, 0));
      default -> OptionalLong.empty();
    };
  }

  /** The value as text, when it is a single string. */
  public Optional<String> string() {
    return type == Type.STRING ? Optional.of(string(0)) : Optional.empty();
  }

  /** The first elements of an array, or the single value, as text. */
  public List<String> first(int limit) {
    List<String> texts = new ArrayList<>();
    long at = 0;
    for (long i = 0; i < Math.min(count, limit); i++) {
      texts.add(text(at));
      at += element == Type.STRING ? Long.BYTES + data.get(U64, at) : element.bytes();
    }
    return texts;
  }

  /** For people: the value, or the first elements and the number of all. */
  public String text() {
    if (type != Type.ARRAY) {
      return text(0);
    }
    String more = count > SHOWN ? ", … " + count + " in all" : "";
    return "[" + String.join(", ", first(SHOWN)) + more + "]";
  }

  private String text(long at) {
    return switch (element) {
      case STRING -> string(at);
      case F32 -> Float.toString(Float.intBitsToFloat(data.get(U32, at)));
      case F64 -> Double.toString(Double.longBitsToDouble(data.get(U64, at)));
      case BOOL -> whole(element, at) == 0 ? "false" : "true";
      case U64 -> Long.toUnsignedString(data.get(U64, at));
      default -> Long.toString(whole(element, at));
    };
  }

  private long whole(Type of, long at) {
    return switch (of) {
      case U8, BOOL -> data.get(ValueLayout.JAVA_BYTE, at) & 0xFF;
      case I8 -> data.get(ValueLayout.JAVA_BYTE, at);
      case U16 -> data.get(U16, at) & 0xFFFF;
      case I16 -> data.get(U16, at);
      case U32 -> data.get(U32, at) & 0xFFFFFFFFL;
      case I32 -> data.get(U32, at);
      default -> data.get(U64, at);
    };
  }

  /** What is longer than anybody reads is cut. */
  private String string(long at) {
    long length = data.get(U64, at);
    byte[] utf8 =
        data.asSlice(at + Long.BYTES, Math.min(length, LONGEST_TEXT))
            .toArray(ValueLayout.JAVA_BYTE);
    String text = new String(utf8, StandardCharsets.UTF_8);
    return length > LONGEST_TEXT ? text + "…" : text;
  }
}
