package dev.gatun.bench.peers;

import dev.gatun.cli.CommonOptions;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine.Option;

/** Which layers a command measures, with how many threads and for how long. */
final class LayerOptions {
  @Option(
      names = "--work",
      split = ",",
      paramLabel = "W",
      description = "Kinds of weights; bench peers has all there are (default: ${DEFAULT-VALUE}).")
  private List<String> works;

  @Option(
      names = "--m",
      split = ",",
      paramLabel = "M",
      description = "Numbers of rows (default: ${DEFAULT-VALUE}).")
  private List<Integer> rows;

  @Option(
      names = "--shape",
      paramLabel = "NxK",
      description = "Outputs and inputs (default: ${DEFAULT-VALUE}).")
  private String shape = "4096x4096";

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "Threads of every engine (default: the cores that the JVM sees).")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(
      names = "--seconds",
      paramLabel = "S",
      description = "Time for one work and number of rows (default: ${DEFAULT-VALUE}).")
  private double seconds = 2;

  /**
   * With what is measured unless something else is asked for.
   *
   * @param works their labels
   */
  LayerOptions(List<String> works, List<Integer> rows) {
    this.works = works;
    this.rows = rows;
  }

  /** N × K layers of each kind, by x of each number of rows. */
  record Layers(List<Work> works, List<Integer> rows, int n, int k, int threads, double seconds) {}

  /** What was asked for, checked. */
  Layers layers(CommonOptions common) {
    List<Work> chosen = works.stream().map(name -> work(common, name)).distinct().toList();
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
    for (int m : rows) {
      if (m < 1 || m > 1 << 16 || (long) m * Math.max(n, k) > 1 << 28) {
        throw common.usage(
            "--m: found " + m + ", expected 1 to 65536, and less than 2^28 numbers in x and y");
      }
    }
    if (threads < 1 || threads > 1024) {
      throw common.usage("--threads: found " + threads + ", expected 1 to 1024");
    }
    if (!(seconds >= 0 && seconds <= 3600)) {
      throw common.usage("--seconds: found " + seconds + ", expected 0 to 3600");
    }
    return new Layers(chosen, List.copyOf(rows), n, k, threads, seconds);
  }

  private static int size(String text) {
    return text.matches("\\d{1,9}") ? Integer.parseInt(text) : 0;
  }

  private static Work work(CommonOptions common, String name) {
    return Arrays.stream(Work.values())
        .filter(work -> work.label().equals(name.toLowerCase(Locale.ROOT)))
        .findFirst()
        .orElseThrow(
            () -> common.usage("--work: found '" + name + "', expected one of " + Work.labels()));
  }
}
