package dev.gatun.checkpoint;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;

/** SHA-256 of bytes and of a file's ends. */
final class Sha256 {
  private static final int END = 1 << 16;

  private Sha256() {}

  private static MessageDigest digest() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e); // every Java platform has it
    }
  }

  static byte[] of(byte[] bytes) {
    return digest().digest(bytes);
  }

  /** Of the first and the last 64 KiB. */
  static byte[] ofEnds(FileChannel channel) throws IOException {
    MessageDigest digest = digest();
    for (long from : new long[] {0, Math.max(0, channel.size() - END)}) {
      ByteBuffer bytes = ByteBuffer.allocate(END);
      while (bytes.hasRemaining() && channel.read(bytes, from + bytes.position()) >= 0) {
        // until the end
      }
      digest.update(bytes.flip());
    }
    return digest.digest();
  }

  static String hex(byte[] bytes) {
    return HexFormat.of().formatHex(bytes);
  }
}
