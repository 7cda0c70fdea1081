package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import java.nio.file.Path;

/** Words of this package's exceptions: one line that names file, tensor, found and expected. */
final class Problem {
  private static final int LONGEST_NAME = 160;

  private Problem() {}

  /** {@code file: tensor 'name': found this, expected that}. */
  static GatunException tensor(Path file, String tensor, String found, String expected) {
    return new GatunException(
        file + ": tensor " + quote(tensor) + ": found " + found + ", expected " + expected);
  }

  /** {@code file: found this, expected that}. */
  static GatunException file(Path file, String found, String expected) {
    return new GatunException(file + ": found " + found + ", expected " + expected);
  }

  /** A name from a file, in quotes, on one line and of bearable length. */
  static String quote(String name) {
    StringBuilder out = new StringBuilder("'");
    int length = Math.min(name.length(), LONGEST_NAME);
    for (int i = 0; i < length; i++) {
      char c = name.charAt(i);
      if (Character.isISOControl(c) || Character.isSurrogate(c) || c == '\u2028' || c == '\u2029') {
        out.append(String.format("\\u%04x", (int) c));
      } else {
        out.append(c);
      }
    }
    return out.append(length < name.length() ? "…'" : "'").toString();
  }
}
