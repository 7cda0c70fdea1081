package dev.gatun.cli;

import java.util.List;
import java.util.Locale;

/** Numbers for people. */
final class Units {
  private static final List<String> BINARY = List.of("bytes", "KiB", "MiB", "GiB", "TiB");

  private Units() {}

  /** {@code 1.4 MiB}. */
  static String bytes(long bytes) {
    double value = bytes;
    int unit = 0;
    while (value >= 1024 && unit < BINARY.size() - 1) {
      value /= 1024;
      unit++;
    }
    return unit == 0
        ? bytes + " bytes"
        : String.format(Locale.ROOT, "%.1f %s", value, BINARY.get(unit));
  }

  /** With a fixed number of decimals. */
  static String decimals(double value, int decimals) {
    return String.format(Locale.ROOT, "%." + decimals + "f", value);
  }

  /**
   * Four significant digits, as an exponent where that is shorter: {@code 0.08123}, {@code
   * 3.100e-08}.
   */
  static String significant(double value) {
    return value == 0 ? "0" : String.format(Locale.ROOT, "%.4g", value);
  }

  /** Text from a file without what would break the line or drive the terminal. */
  static String line(String text) {
    return text.replaceAll("\\p{Cntrl}", "?");
  }

  /** {@code 256 x 512}. */
  static String shape(List<Long> shape) {
    return shape.isEmpty()
        ? "scalar"
        : shape.stream().map(String::valueOf).collect(java.util.stream.Collectors.joining(" x "));
  }
}
