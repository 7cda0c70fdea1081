package dev.gatun.bench.onnx;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * Builds one protobuf message in its wire format. Large fields are kept by reference until the
 * message is written.
 */
final class ProtoWriter {
  private static final int VARINT = 0;
  private static final int BYTES = 2;
  private static final int FIXED32 = 5;

  /** Bytes of an array that is not copied. */
  private record Part(byte[] bytes, int first, int end) {}

  private final List<Part> parts = new ArrayList<>();
  private long size;

  /** Adds an integer. */
  ProtoWriter integer(int field, long value) {
    varint((long) field << 3 | VARINT);
    return varint(value);
  }

  /** Adds a 32-bit float. */
  ProtoWriter real(int field, float value) {
    varint((long) field << 3 | FIXED32);
    int bits = Float.floatToRawIntBits(value);
    return add(
        new byte[] {(byte) bits, (byte) (bits >>> 8), (byte) (bits >>> 16), (byte) (bits >>> 24)});
  }

  /** Adds bytes. */
  ProtoWriter bytes(int field, byte[] value) {
    varint((long) field << 3 | BYTES);
    varint(value.length);
    return add(value);
  }

  /** Adds bytes, those from {@code first} on before the others. */
  ProtoWriter rotated(int field, byte[] value, int first) {
    varint((long) field << 3 | BYTES);
    varint(value.length);
    return add(new Part(value, first, value.length)).add(new Part(value, 0, first));
  }

  /** Adds text. */
  ProtoWriter string(int field, String value) {
    return bytes(field, value.getBytes(StandardCharsets.UTF_8));
  }

  /** Adds a finished message. */
  ProtoWriter message(int field, ProtoWriter value) {
    varint((long) field << 3 | BYTES);
    varint(value.size);
    parts.addAll(value.parts);
    size += value.size;
    return this;
  }

  /** Writes the message. */
  void writeTo(OutputStream out) throws IOException {
    for (Part part : parts) {
      out.write(part.bytes, part.first, part.end - part.first);
    }
  }

  /** The message. */
  byte[] toByteArray() {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    try {
      writeTo(out);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return out.toByteArray();
  }

  private ProtoWriter varint(long value) {
    byte[] bytes = new byte[10];
    int count = 0;
    long rest = value;
    while ((rest & ~0x7FL) != 0) {
      bytes[count++] = (byte) (rest & 0x7F | 0x80);
      rest >>>= 7;
    }
    bytes[count++] = (byte) rest;
    return add(java.util.Arrays.copyOf(bytes, count));
  }

  private ProtoWriter add(byte[] part) {
    return add(new Part(part, 0, part.length));
  }

  private ProtoWriter add(Part part) {
    parts.add(part);
    size += part.end - part.first;
    return this;
  }
}
