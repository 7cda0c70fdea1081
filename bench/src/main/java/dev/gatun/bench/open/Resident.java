package dev.gatun.bench.open;

import dev.gatun.GatunException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/**
 * Memory of this process that is in RAM, in bytes, as Linux counts it.
 *
 * @param own pages that belong to the process alone (RssAnon): heap, packed weights
 * @param mapped pages of mapped files (RssFile), which the system drops when it needs the room
 */
record Resident(long own, long mapped) {
  private static final Path STATUS = Path.of("/proc/self/status");

  static Resident now() {
    try {
      List<String> lines = Files.readAllLines(STATUS);
      return new Resident(bytes(lines, "RssAnon:"), bytes(lines, "RssFile:"));
    } catch (IOException e) {
      throw new GatunException(STATUS + ": found no such file, expected Linux's", e);
    }
  }

  private static long bytes(List<String> lines, String name) {
    return lines.stream()
        .filter(line -> line.startsWith(name))
        .map(line -> line.replaceAll("\\D", ""))
        .mapToLong(kibibytes -> Long.parseLong(kibibytes) << 10)
        .findFirst()
        .orElseThrow(
            () -> new GatunException(STATUS + ": found no " + name + ", expected Linux 4.5's"));
  }

  Resident since(Resident before) {
    return new Resident(own - before.own, mapped - before.mapped);
  }
}
