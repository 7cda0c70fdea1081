package dev.gatun.cli;

import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;

/** How large this machine's caches are. */
final class Caches {
  private static final Path SYSFS = Path.of("/sys/devices/system/cpu/cpu0/cache");

  /** Taken where the system does not say. */
  private static final long USUAL = 64L << 20;

  /** Copies of a weight take no more than this, however large the cache is said to be. */
  private static final long MOST_BYTES = 1L << 30;

  /** Nor more than this many, however small the weight is. */
  private static final int MOST_COPIES = 4096;

  private Caches() {}

  /**
   * So many copies of a weight that a round over them leaves nothing of the first in any cache; at
   * least 2.
   */
  static int copiesBeyond(long weightBytes) {
    return copiesBeyond(weightBytes, largest());
  }

  /** The same for a cache of this size. */
  static int copiesBeyond(long weightBytes, long cacheBytes) {
    long wanted = Math.min(2 * cacheBytes, MOST_BYTES);
    return Math.clamp(Math.ceilDiv(wanted, Math.max(1, weightBytes)) + 1, 2, MOST_COPIES);
  }

  /** Bytes of the largest cache that a core sees. */
  static long largest() {
    long largest = 0;
    try (DirectoryStream<Path> levels = Files.newDirectoryStream(SYSFS, "index*")) {
      for (Path level : levels) {
        largest = Math.max(largest, parse(Files.readString(level.resolve("size"))));
      }
    } catch (IOException e) {
      return USUAL; // not Linux, or not told to a container
    }
    return largest > 0 ? largest : USUAL;
  }

  /** {@code 2048K} or {@code 32M}; 0 for anything else. */
  static long parse(String size) {
    String text = size.strip();
    if (!text.matches("\\d{1,12}[KM]?")) {
      return 0;
    }
    long unit = text.endsWith("M") ? 1 << 20 : text.endsWith("K") ? 1 << 10 : 1;
    return unit * Long.parseLong(text.replaceAll("[KM]", ""));
  }
}
