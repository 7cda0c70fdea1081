package dev.gatun.bindings;

import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;

/**
 * Finds libgatun, and libgatun_cuda where there is one, and loads each once in the life of the JVM.
 * A library is looked for in
 *
 * <ol>
 *   <li>the file or directory that the system property {@code gatun.library.path}, or {@code
 *       gatun.cuda.library.path}, names,
 *   <li>each directory of {@code java.library.path},
 *   <li>{@code META-INF/native/<os>-<arch>/} of the class path, from where it is copied to a cache
 *       directory under its content's hash, and the copy verified on every start.
 * </ol>
 *
 * <p>A library of another ABI version is passed over. What came of it is a value: nothing here
 * throws because a library is missing.
 */
public final class NativeLibrary {
  /** The system property that names the library's file, or the directory that it is in. */
  public static final String PATH_PROPERTY = "gatun.library.path";

  /** The system property that names libgatun_cuda's file, or the directory that it is in. */
  public static final String CUDA_PATH_PROPERTY = "gatun.cuda.library.path";

  /** The system property that names the cache directory, instead of the user's own. */
  public static final String CACHE_PROPERTY = "gatun.cache.dir";

  /** Where a library was found. */
  public enum Source {
    /** Its system property. */
    PROPERTY,
    /** A directory of {@code java.library.path}. */
    LIBRARY_PATH,
    /** The class path, by way of the cache directory. */
    JAR
  }

  /**
   * One place that was looked at.
   *
   * @param place what was looked at
   * @param outcome {@code loaded}, or why not
   */
  public record Attempt(String place, String outcome) {
    @Override
    public String toString() {
      return place + ": " + outcome;
    }
  }

  /** What came of looking for the library. */
  public sealed interface Result {
    /** Every place that was looked at, in order. */
    List<Attempt> attempts();

    /** One line for people. */
    String describe();
  }

  /**
   * The library is loaded.
   *
   * @param path the file
   */
  public record Loaded(Path path, Source source, List<Attempt> attempts) implements Result {
    /** Copies the list. */
    public Loaded {
      attempts = List.copyOf(attempts);
    }

    @Override
    public String describe() {
      return path.toString();
    }
  }

  /**
   * There is no library that can be loaded.
   *
   * @param wanted its file name and ABI
   */
  public record Missing(String wanted, List<Attempt> attempts) implements Result {
    /** Copies the list. */
    public Missing {
      attempts = List.copyOf(attempts);
    }

    @Override
    public String describe() {
      return "no "
          + wanted
          + " was found; looked at "
          + attempts.stream().map(Attempt::toString).collect(Collectors.joining("; "));
    }
  }

  private static final class Once {
    static final Result RESULT = find(LibraryKind.CPU);
  }

  private static final class OnceForCuda {
    static final Result RESULT = find(LibraryKind.CUDA);
  }

  private NativeLibrary() {}

  private static Result find(LibraryKind kind) {
    ClassLoader resources = NativeLibrary.class.getClassLoader();
    return new LibraryFinder(kind, System::getProperty, System::getenv, resources)
        .find(new LibraryOpener(kind));
  }

  /** Loads libgatun on the first call; the same result on every later one. Thread-safe. */
  public static Result load() {
    return Once.RESULT;
  }

  /**
   * Loads libgatun_cuda on the first call; the same result on every later one. Thread-safe. That it
   * is loaded says nothing of a GPU.
   */
  public static Result loadCuda() {
    return OnceForCuda.RESULT;
  }

  /**
   * The platform's name in {@code META-INF/native/} and in the jar's classifier, such as {@code
   * linux-x86_64}.
   */
  public static String platform() {
    return LibraryFinder.platform(System.getProperty("os.name"), System.getProperty("os.arch"));
  }
}
