package dev.gatun.bench.onnx;

import dev.gatun.GatunException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.charset.StandardCharsets;

/**
 * Walks the fields of one protobuf message in its wire format:
 *
 * <pre>{@code
 * while (message.next()) {
 *   switch (message.field()) {
 *     case 7 -> graph(message.message());
 *     default -> {} // skipped
 *   }
 * }
 * }</pre>
 */
final class ProtoReader {
  private static final int VARINT = 0;
  private static final int FIXED64 = 1;
  private static final int BYTES = 2;
  private static final int FIXED32 = 5;

  private final String source;
  private final MemorySegment data;
  private long at;
  private int field;
  private int wireType;
  private long number;
  private MemorySegment bytes = MemorySegment.NULL;

  /**
   * A reader of one message.
   *
   * @param source for messages of exceptions
   */
  ProtoReader(String source, MemorySegment data) {
    this.source = source;
    this.data = data;
  }

  /** Moves to the next field; false at the end. */
  boolean next() {
    if (at == data.byteSize()) {
      return false;
    }
    long key = varint();
    field = (int) (key >>> 3);
    wireType = (int) (key & 7);
    if (key >>> 32 != 0 || field == 0) {
      throw problem("the field key " + key, "a field number");
    }
    switch (wireType) {
      case VARINT -> number = varint();
      case FIXED64 -> bytes = take(8);
      case BYTES -> bytes = take(varint());
      case FIXED32 -> bytes = take(4);
      default -> throw problem("wire type " + wireType + " of field " + field, "0, 1, 2 or 5");
    }
    return true;
  }

  /** The number of the field. */
  int field() {
    return field;
  }

  /** The field as an integer. */
  long integer() {
    expect(VARINT);
    return number;
  }

  /** The field as bytes: a slice of the message. */
  MemorySegment bytes() {
    expect(BYTES);
    return bytes;
  }

  /** The field as text. */
  String string() {
    return new String(bytes().toArray(ValueLayout.JAVA_BYTE), StandardCharsets.UTF_8);
  }

  /** The field as a message. */
  ProtoReader message() {
    return new ProtoReader(source, bytes());
  }

  /**
   * Whether the field holds several integers one after the other; then {@link #packed()} reads
   * them.
   */
  boolean isPacked() {
    return wireType == BYTES;
  }

  /** The field as a run of integers. */
  long[] packed() {
    ProtoReader run = message();
    long[] values = new long[Math.toIntExact(Math.min(run.data.byteSize(), 1 << 20))];
    int count = 0;
    while (run.at < run.data.byteSize()) {
      if (count == values.length) {
        throw problem("more than " + count + " integers in field " + field, "fewer");
      }
      values[count++] = run.varint();
    }
    return java.util.Arrays.copyOf(values, count);
  }

  private void expect(int type) {
    if (wireType != type) {
      throw problem("wire type " + wireType + " of field " + field, String.valueOf(type));
    }
  }

  private long varint() {
    long value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      byte b = take(1).get(ValueLayout.JAVA_BYTE, 0);
      value |= (long) (b & 0x7F) << shift;
      if (b >= 0) {
        return value;
      }
    }
    throw problem("an integer of more than ten bytes", "at most ten");
  }

  private MemorySegment take(long size) {
    if (size < 0 || size > data.byteSize() - at) {
      throw problem(
          "a field of " + size + " bytes with " + (data.byteSize() - at) + " left",
          "a whole message");
    }
    MemorySegment slice = data.asSlice(at, size);
    at += size;
    return slice;
  }

  private GatunException problem(String found, String expected) {
    return new GatunException(source + ": found " + found + ", expected " + expected);
  }
}
