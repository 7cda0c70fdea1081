package dev.gatun.bench.peers;

import dev.gatun.cli.CommonOptions;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** Reads and checks the options that commands of this package share. */
final class Plans {
  private final CommonOptions common;

  Plans(CommonOptions common) {
    this.common = common;
  }

  /** N and K. */
  int[] shape(String shape) {
    String[] sizes = shape.split("[xX×]", -1);
    int n = sizes.length == 2 ? size(sizes[0]) : 0;
    int k = sizes.length == 2 ? size(sizes[1]) : 0;
    // Floats of this shape must fit into an array, with room for their header.
    if (n < 64 || k < 1 || (long) n * k > (1 << 29) - 64) {
      throw common.usage(
          "--shape: found '"
              + shape
              + "', expected NxK, N at least 64, with less than 2^29 weights");
    }
    return new int[] {n, k};
  }

  private static int size(String text) {
    return text.matches("\\d{1,9}") ? Integer.parseInt(text) : 0;
  }

  void rows(List<Integer> rows, int[] shape) {
    for (int m : rows) {
      if (m < 1 || m > 1 << 16 || (long) m * Math.max(shape[0], shape[1]) > 1 << 28) {
        throw common.usage(
            "--m: found " + m + ", expected 1 to 65536, and less than 2^28 numbers in x and y");
      }
    }
  }

  void threads(int threads) {
    if (threads < 1 || threads > 1024) {
      throw common.usage("--threads: found " + threads + ", expected 1 to 1024");
    }
  }

  void seconds(double seconds) {
    if (!(seconds >= 0 && seconds <= 3600)) {
      throw common.usage("--seconds: found " + seconds + ", expected 0 to 3600");
    }
  }

  Work work(String name) {
    return Arrays.stream(Work.values())
        .filter(work -> work.label().equals(name.toLowerCase(Locale.ROOT)))
        .findFirst()
        .orElseThrow(
            () ->
                common.usage(
                    "--work: found '"
                        + name
                        + "', expected one of "
                        + Arrays.stream(Work.values()).map(Work::label).toList()));
  }
}
