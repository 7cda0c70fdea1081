package dev.gatun.bindings;

import dev.gatun.bindings.NativeLibrary.Attempt;
import dev.gatun.bindings.NativeLibrary.Source;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * Looks at one place after the other. What it reads of the world is handed in, so that it can be
 * tested.
 */
final class LibraryFinder {
  private final LibraryKind kind;
  private final Function<String, @Nullable String> properties;
  private final Function<String, @Nullable String> environment;
  private final ClassLoader resources;
  private final List<Attempt> attempts = new ArrayList<>();

  LibraryFinder(
      LibraryKind kind,
      Function<String, @Nullable String> properties,
      Function<String, @Nullable String> environment,
      ClassLoader resources) {
    this.kind = kind;
    this.properties = properties;
    this.environment = environment;
    this.resources = resources;
  }

  static String platform(String osName, String osArch) {
    String os = osName.toLowerCase(Locale.ROOT);
    String arch = osArch.toLowerCase(Locale.ROOT);
    String family =
        os.startsWith("mac") ? "osx" : os.startsWith("windows") ? "windows" : os.replace(' ', '_');
    String machine =
        switch (arch) {
          case "amd64", "x86_64", "x64" -> "x86_64";
          case "aarch64", "arm64" -> "aarch64";
          default -> arch;
        };
    return family + "-" + machine;
  }

  NativeLibrary.Result find(LibraryOpener opener) {
    attempts.clear();
    return property(opener)
        .or(() -> libraryPath(opener))
        .or(() -> jar(opener))
        .<NativeLibrary.Result>map(loaded -> loaded)
        .orElseGet(() -> new NativeLibrary.Missing(wanted(), attempts));
  }

  private String wanted() {
    return kind.fileName() + " of ABI " + kind.abi();
  }

  private Optional<NativeLibrary.Loaded> property(LibraryOpener opener) {
    String value = properties.apply(kind.pathProperty());
    if (value == null || value.isEmpty()) {
      attempts.add(new Attempt(kind.pathProperty(), "not set"));
      return Optional.empty();
    }
    return file(kind.pathProperty() + " ", value, Source.PROPERTY, opener);
  }

  private Optional<NativeLibrary.Loaded> libraryPath(LibraryOpener opener) {
    String path = properties.apply("java.library.path");
    if (path == null || path.isEmpty()) {
      attempts.add(new Attempt("java.library.path", "not set"));
      return Optional.empty();
    }
    for (String directory : new LinkedHashSet<>(List.of(path.split(File.pathSeparator)))) {
      if (!directory.isEmpty()) {
        Optional<NativeLibrary.Loaded> loaded =
            file("java.library.path ", directory, Source.LIBRARY_PATH, opener);
        if (loaded.isPresent()) {
          return loaded;
        }
      }
    }
    return Optional.empty();
  }

  /** A file, or the library in a directory. */
  private Optional<NativeLibrary.Loaded> file(
      String place, String value, Source source, LibraryOpener opener) {
    Path path;
    try {
      path = Path.of(value).toAbsolutePath().normalize();
    } catch (InvalidPathException e) {
      attempts.add(new Attempt(place + value, "is not a path"));
      return Optional.empty();
    }
    if (source == Source.LIBRARY_PATH || Files.isDirectory(path)) {
      path = path.resolve(kind.fileName());
    }
    if (!Files.exists(path)) {
      attempts.add(new Attempt(place + path, "no such file"));
      return Optional.empty();
    }
    return open(place, path, source, "", opener);
  }

  private Optional<NativeLibrary.Loaded> open(
      String place, Path path, Source source, String note, LibraryOpener opener) {
    Optional<String> why = opener.open(path);
    attempts.add(new Attempt(place + path, note + why.orElse("loaded")));
    return why.isPresent()
        ? Optional.empty()
        : Optional.of(new NativeLibrary.Loaded(path, source, attempts));
  }

  private Optional<NativeLibrary.Loaded> jar(LibraryOpener opener) {
    String platform = platform(System.getProperty("os.name"), System.getProperty("os.arch"));
    String name = "META-INF/native/" + platform + "/" + kind.fileName();
    byte[] content;
    try (InputStream in = resources.getResourceAsStream(name)) {
      if (in == null) {
        attempts.add(
            new Attempt(
                "class path " + name,
                "no such resource; the jar " + kind.jar(platform) + " brings it"));
        return Optional.empty();
      }
      content = in.readAllBytes();
    } catch (IOException e) {
      attempts.add(new Attempt("class path " + name, "cannot be read: " + e.getMessage()));
      return Optional.empty();
    }
    LibraryCache cache = new LibraryCache(kind.fileName(), content);
    for (Path directory : cacheDirectories()) {
      try {
        LibraryCache.Copy copy = cache.copyIn(directory);
        Optional<NativeLibrary.Loaded> loaded =
            open("cache ", copy.file(), Source.JAR, copy.note(), opener);
        if (loaded.isPresent()) {
          return loaded;
        }
      } catch (IOException | SecurityException e) {
        attempts.add(new Attempt("cache " + directory, LibraryCache.reason(e)));
      }
    }
    return Optional.empty();
  }

  /** The first that is writable, private and executable is used. */
  private Set<Path> cacheDirectories() {
    Set<Path> directories = new LinkedHashSet<>();
    add(directories, properties.apply(NativeLibrary.CACHE_PROPERTY), "");
    add(directories, environment.apply("XDG_CACHE_HOME"), "gatun");
    String home = properties.apply("user.home");
    add(directories, home == null ? null : home + "/.cache", "gatun");
    add(directories, properties.apply("java.io.tmpdir"), "gatun-" + properties.apply("user.name"));
    return directories;
  }

  private void add(Set<Path> directories, @Nullable String parent, String child) {
    if (parent == null || parent.isEmpty()) {
      return;
    }
    try {
      Path path = Path.of(parent);
      // The XDG specification: a path that is not absolute is ignored.
      if (path.isAbsolute()) {
        directories.add(path.resolve(child).normalize());
      } else {
        attempts.add(new Attempt("cache " + parent, "is not an absolute path"));
      }
    } catch (InvalidPathException e) {
      attempts.add(new Attempt("cache " + parent, "is not a path"));
    }
  }
}
