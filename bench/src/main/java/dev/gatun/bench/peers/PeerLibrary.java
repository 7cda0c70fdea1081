package dev.gatun.bench.peers;

import dev.gatun.GatunException;
import dev.gatun.bindings.NativeLibrary;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.SymbolLookup;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.Stream;

/** A C library of a peer: from the path that a property names, or from a jar on the class path. */
final class PeerLibrary {
  private PeerLibrary() {}

  /**
   * Loads a library until the arena is closed.
   *
   * @param property the system property that may hold a path
   * @param files where the class path has the library, and after it those that it needs from its
   *     own directory, each with the name that it is known by there; may be empty when the property
   *     is set
   * @throws GatunException when there is neither
   */
  static SymbolLookup open(String property, Map<String, String> files, Arena arena) {
    String given = System.getProperty(property);
    try {
      if (given != null) {
        return SymbolLookup.libraryLookup(Path.of(given), arena);
      }
      Path directory = Files.createTempDirectory("gatun-peer-");
      try {
        for (Map.Entry<String, String> file : files.entrySet()) {
          copy(file.getKey(), directory.resolve(file.getValue()));
        }
        String library = files.values().iterator().next();
        return SymbolLookup.libraryLookup(directory.resolve(library), arena);
      } finally {
        delete(directory); // a loaded library stays mapped without its name
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } catch (IllegalArgumentException e) {
      throw new GatunException("found a library that cannot be loaded: " + e.getMessage(), e);
    }
  }

  /** Files of a library that org.bytedeco packages. */
  static Map<String, String> bytedeco(String library, String... names) {
    Map<String, String> files = new LinkedHashMap<>();
    for (String name : names) {
      files.put("org/bytedeco/" + library + "/" + NativeLibrary.platform() + "/" + name, name);
    }
    return files;
  }

  private static void copy(String resource, Path to) throws IOException {
    try (InputStream in = PeerLibrary.class.getClassLoader().getResourceAsStream(resource)) {
      if (in == null) {
        throw new GatunException(
            "found no " + resource + " on the class path, expected a build with -Ppeers");
      }
      Files.copy(in, to);
    }
  }

  private static void delete(Path directory) throws IOException {
    try (Stream<Path> files = Files.walk(directory)) {
      for (Path file : files.sorted(Comparator.reverseOrder()).toList()) {
        Files.deleteIfExists(file);
      }
    }
  }
}
