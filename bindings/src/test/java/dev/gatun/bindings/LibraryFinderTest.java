package dev.gatun.bindings;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.bindings.NativeLibrary.Attempt;
import dev.gatun.bindings.NativeLibrary.Loaded;
import dev.gatun.bindings.NativeLibrary.Missing;
import dev.gatun.bindings.NativeLibrary.Result;
import dev.gatun.bindings.NativeLibrary.Source;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.Callable;
import java.util.concurrent.Executors;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class LibraryFinderTest {
  private static final String GOOD =
      "int gatun_abi_version(void) { return " + gatun_h.GATUN_ABI_VERSION() + "; }\n";

  /** Checks a library as the real one does, but does not load it into this JVM. */
  private static final LibraryOpener CHECKS =
      new LibraryOpener(LibraryKind.CPU) {
        @Override
        Optional<String> open(Path file) {
          return refuses(file);
        }
      };

  /** Takes any file. */
  private static final LibraryOpener TAKES =
      new LibraryOpener(LibraryKind.CPU) {
        @Override
        Optional<String> open(Path file) {
          return Optional.empty();
        }
      };

  @TempDir Path scratch;
  private final Map<String, String> properties = new HashMap<>();
  private final Map<String, String> environment = new HashMap<>();
  private LibraryKind kind = LibraryKind.CPU;
  private Path resources;

  @BeforeEach
  void directories() throws Exception {
    resources = Files.createDirectories(scratch.resolve("resources"));
    properties.put("user.home", scratch.resolve("home").toString());
    properties.put("user.name", "someone");
    properties.put("java.io.tmpdir", scratch.resolve("tmp").toString());
  }

  private Result find(LibraryOpener opener) throws Exception {
    try (URLClassLoader loader = new URLClassLoader(new URL[] {resources.toUri().toURL()}, null)) {
      return new LibraryFinder(kind, properties::get, environment::get, loader).find(opener);
    }
  }

  private void jar(byte[] content) throws Exception {
    Path directory = resources.resolve("META-INF/native/" + NativeLibrary.platform());
    Files.write(Files.createDirectories(directory).resolve(LibraryKind.CPU.fileName()), content);
  }

  private static List<String> outcomes(Result result) {
    return result.attempts().stream().map(Attempt::outcome).toList();
  }

  @Test
  void propertyNamesAFile() throws Exception {
    Path library = Files.createFile(scratch.resolve("any-name.so"));
    properties.put(NativeLibrary.PATH_PROPERTY, library.toString());
    assertThat(find(TAKES))
        .isInstanceOfSatisfying(
            Loaded.class,
            loaded -> {
              assertThat(loaded.path()).isEqualTo(library);
              assertThat(loaded.source()).isEqualTo(Source.PROPERTY);
            });
  }

  @Test
  void propertyNamesADirectory() throws Exception {
    Path library = Files.createFile(scratch.resolve(LibraryKind.CPU.fileName()));
    properties.put(NativeLibrary.PATH_PROPERTY, scratch.toString());
    assertThat(find(TAKES))
        .isInstanceOfSatisfying(
            Loaded.class, loaded -> assertThat(loaded.path()).isEqualTo(library));
  }

  @Test
  void libraryPathComesNext() throws Exception {
    Path second = Files.createDirectories(scratch.resolve("second"));
    Path library = Files.createFile(second.resolve(LibraryKind.CPU.fileName()));
    properties.put(NativeLibrary.PATH_PROPERTY, scratch.resolve("missing").toString());
    properties.put("java.library.path", scratch.resolve("first") + ":" + second);
    Result result = find(TAKES);
    assertThat(result)
        .isInstanceOfSatisfying(
            Loaded.class,
            loaded -> {
              assertThat(loaded.path()).isEqualTo(library);
              assertThat(loaded.source()).isEqualTo(Source.LIBRARY_PATH);
            });
    assertThat(outcomes(result)).containsExactly("no such file", "no such file", "loaded");
  }

  @Test
  void nothingFoundListsEveryPlace() throws Exception {
    properties.put("java.library.path", "/nowhere");
    Result result = find(TAKES);
    assertThat(result).isInstanceOf(Missing.class);
    assertThat(result.describe())
        .contains("gatun.library.path: not set")
        .contains("java.library.path /nowhere/" + LibraryKind.CPU.fileName() + ": no such file")
        .contains("META-INF/native/" + NativeLibrary.platform())
        .doesNotContain("\n");
  }

  @Test
  void jarIsCopiedOnceUnderItsHash() throws Exception {
    byte[] content = "a library".getBytes(StandardCharsets.UTF_8);
    jar(content);
    environment.put("XDG_CACHE_HOME", scratch.resolve("xdg").toString());
    Loaded first = (Loaded) find(TAKES);
    assertThat(first.source()).isEqualTo(Source.JAR);
    assertThat(first.path()).startsWith(scratch.resolve("xdg/gatun")).hasBinaryContent(content);
    assertThat(first.path().getParent().getFileName().toString()).matches("[0-9a-f]{64}");
    Object written = Files.getLastModifiedTime(first.path());
    Object key = Files.getAttribute(first.path(), "unix:ino");
    assertThat(((Loaded) find(TAKES)).path()).isEqualTo(first.path());
    assertThat(Files.getLastModifiedTime(first.path())).isEqualTo(written);
    assertThat(Files.getAttribute(first.path(), "unix:ino")).isEqualTo(key);
    try (var files = Files.list(first.path().getParent())) {
      assertThat(files).containsExactly(first.path());
    }
  }

  @Test
  void damagedCopyIsWrittenAnew() throws Exception {
    byte[] content = "a library".getBytes(StandardCharsets.UTF_8);
    jar(content);
    Path copy = ((Loaded) find(TAKES)).path();
    Files.writeString(copy, "a 1ibrary");
    Result result = find(TAKES);
    assertThat(((Loaded) result).path()).isEqualTo(copy).hasBinaryContent(content);
    assertThat(outcomes(result)).last().asString().contains("damaged").contains("loaded");
  }

  @Test
  void unwritableDirectoryFallsBackToTheNext() throws Exception {
    jar(new byte[] {1, 2, 3});
    Path file = Files.createFile(scratch.resolve("file"));
    environment.put("XDG_CACHE_HOME", file.toString());
    properties.put("user.home", "/proc/self");
    Result result = find(TAKES);
    assertThat(((Loaded) result).path()).startsWith(scratch.resolve("tmp/gatun-someone"));
    assertThat(result.attempts())
        .anySatisfy(a -> assertThat(a.place()).isEqualTo("cache " + file.resolve("gatun")))
        .anySatisfy(a -> assertThat(a.place()).isEqualTo("cache /proc/self/.cache/gatun"));
  }

  @Test
  void directoryThatOthersCanWriteIsPassedOver() throws Exception {
    jar(new byte[] {1, 2, 3});
    Path open = Files.createDirectories(scratch.resolve("home/.cache/gatun"));
    Files.setPosixFilePermissions(open, PosixFilePermissions.fromString("rwxrwxrwx"));
    Result result = find(TAKES);
    assertThat(((Loaded) result).path()).startsWith(scratch.resolve("tmp"));
    assertThat(outcomes(result)).contains("can be written by other users");
  }

  /** What a directory mounted noexec looks like: the copy is whole and cannot be mapped. */
  @Test
  void copyThatCannotBeOpenedFallsBackToTheNext() throws Exception {
    jar(new byte[] {1, 2, 3});
    LibraryOpener noexecAtHome =
        new LibraryOpener(LibraryKind.CPU) {
          @Override
          Optional<String> open(Path file) {
            return file.startsWith(scratch.resolve("home"))
                ? Optional.of("cannot be loaded: failed to map segment")
                : Optional.empty();
          }
        };
    Result result = find(noexecAtHome);
    assertThat(((Loaded) result).path()).startsWith(scratch.resolve("tmp"));
    assertThat(outcomes(result)).contains("cannot be loaded: failed to map segment");
  }

  @Test
  void relativeCacheIsIgnored() throws Exception {
    jar(new byte[] {1, 2, 3});
    environment.put("XDG_CACHE_HOME", "relative");
    assertThat(((Loaded) find(TAKES)).path()).startsWith(scratch.resolve("home/.cache/gatun"));
  }

  @Test
  void startsAtOnceShareOneCopy() throws Exception {
    jar(new byte[1 << 20]);
    try (var pool = Executors.newFixedThreadPool(4)) {
      Callable<Path> start = () -> ((Loaded) find(TAKES)).path();
      for (var path : pool.invokeAll(List.of(start, start, start, start))) {
        assertThat(path.get()).hasSize(1 << 20);
      }
    }
  }

  @Test
  void libraryOfTheRightAbiIsTaken() throws Exception {
    Path library = Compiler.library(scratch.resolve("good"), GOOD);
    properties.put(NativeLibrary.PATH_PROPERTY, library.toString());
    assertThat(find(CHECKS)).isInstanceOf(Loaded.class);
  }

  @Test
  void otherAbiIsAReasonAndTheNextPlaceIsTried() throws Exception {
    Path old =
        Compiler.library(scratch.resolve("old"), "int gatun_abi_version(void) { return 999; }\n");
    Path good = Compiler.library(scratch.resolve("good"), GOOD);
    properties.put(NativeLibrary.PATH_PROPERTY, old.toString());
    properties.put("java.library.path", good.getParent().toString());
    Result result = find(CHECKS);
    assertThat(((Loaded) result).path()).isEqualTo(good);
    assertThat(outcomes(result))
        .first()
        .isEqualTo("found ABI version 999, expected " + gatun_h.GATUN_ABI_VERSION());
  }

  @Test
  void libraryOfAnotherKindIsAReason() throws Exception {
    Path other = Compiler.library(scratch.resolve("other"), "int something(void) { return 1; }\n");
    properties.put(NativeLibrary.PATH_PROPERTY, other.toString());
    assertThat(outcomes(find(CHECKS))).first().asString().contains("no gatun_abi_version");
  }

  @Test
  void textFileIsAReason() throws Exception {
    Path text = Files.writeString(scratch.resolve("text.so"), "this is no library");
    properties.put(NativeLibrary.PATH_PROPERTY, text.toString());
    assertThat(outcomes(find(CHECKS))).first().asString().startsWith("cannot be loaded: ");
  }

  @Test
  void directoryInPlaceOfALibraryIsAReason() throws Exception {
    Files.createDirectories(scratch.resolve("lib").resolve(LibraryKind.CPU.fileName()));
    properties.put("java.library.path", scratch.resolve("lib").toString());
    assertThat(outcomes(find(CHECKS))).element(1).asString().startsWith("cannot be loaded: ");
  }

  @Test
  void valueThatIsNoPathIsAReason() throws Exception {
    properties.put(NativeLibrary.PATH_PROPERTY, "a\0b");
    assertThat(outcomes(find(TAKES))).first().isEqualTo("is not a path");
  }

  @Test
  void theLibrariesAreNotTakenForEachOther() throws Exception {
    Path cpu = Compiler.library(scratch.resolve("good"), GOOD);
    kind = LibraryKind.CUDA;
    properties.put(NativeLibrary.PATH_PROPERTY, cpu.toString());
    Result result = find(new LibraryOpener(LibraryKind.CUDA));
    assertThat(result.describe())
        .contains("no " + LibraryKind.CUDA.fileName() + " of ABI ")
        .contains("gatun.cuda.library.path: not set")
        .contains("the jar gatun-cuda with classifier cuda13-" + NativeLibrary.platform());
    properties.put(NativeLibrary.CUDA_PATH_PROPERTY, cpu.toString());
    assertThat(outcomes(find(new LibraryOpener(LibraryKind.CUDA))))
        .first()
        .isEqualTo("is not libgatun_cuda: it has no gatun_cuda_abi_version");
  }

  @Test
  void platformsAreNamedAsTheJarsAre() {
    assertThat(LibraryFinder.platform("Linux", "amd64")).isEqualTo("linux-x86_64");
    assertThat(LibraryFinder.platform("Linux", "aarch64")).isEqualTo("linux-aarch64");
    assertThat(LibraryFinder.platform("Mac OS X", "arm64")).isEqualTo("osx-aarch64");
  }
}
