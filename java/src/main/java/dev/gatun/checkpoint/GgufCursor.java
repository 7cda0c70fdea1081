package dev.gatun.checkpoint;

import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;

/** Reads a GGUF file's head front to back; what is not there ends in an exception. */
final class GgufCursor {
  private static final ValueLayout.OfLong U64 =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt U32 =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final Path path;
  private final MemorySegment bytes;
  private long position;

  GgufCursor(Path path, MemorySegment bytes) {
    this.path = path;
    this.bytes = bytes;
  }

  long position() {
    return position;
  }

  long remaining() {
    return bytes.byteSize() - position;
  }

  int u32(String what) {
    return bytes(what, Integer.BYTES).get(U32, 0);
  }

  long u64(String what) {
    return bytes(what, Long.BYTES).get(U64, 0);
  }

  MemorySegment bytes(String what, long length) {
    if (length > remaining()) {
      throw Problem.file(
          path,
          "the end of the file " + remaining() + " bytes after where " + what + " goes on",
          length + " bytes");
    }
    MemorySegment slice = bytes.asSlice(position, length);
    position += length;
    return slice;
  }

  /** The length of a string that follows. */
  long length(String what) {
    long length = u64(what);
    if (length < 0 || length > remaining()) {
      throw Problem.file(
          path,
          "a string of " + Long.toUnsignedString(length) + " bytes in " + what,
          "at most the " + remaining() + " that the file has left");
    }
    return length;
  }

  /** A name: UTF-8 without NUL. */
  String name(String what, int longest) {
    long length = length(what);
    if (length > longest) {
      throw Problem.file(path, length + " bytes for " + what, "at most " + longest);
    }
    byte[] utf8 = bytes(what, length).toArray(ValueLayout.JAVA_BYTE);
    try {
      String name =
          StandardCharsets.UTF_8
              .newDecoder()
              .onMalformedInput(CodingErrorAction.REPORT)
              .onUnmappableCharacter(CodingErrorAction.REPORT)
              .decode(ByteBuffer.wrap(utf8))
              .toString();
      if (name.indexOf('\0') >= 0) {
        throw Problem.file(path, "a NUL in " + what, "UTF-8 text without one");
      }
      return name;
    } catch (CharacterCodingException e) {
      throw Problem.file(path, "bytes that are not UTF-8 in " + what, "UTF-8 text");
    }
  }
}
