package dev.gatun.bindings;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.file.Path;
import java.util.Optional;

/** Opens a file as a library of Gatun, after it has shown that it is one of the right ABI. */
class LibraryOpener {
  private final LibraryKind kind;

  LibraryOpener(LibraryKind kind) {
    this.kind = kind;
  }

  /** Loads the library for the bindings; the reason in one clause when it cannot be. */
  Optional<String> open(Path file) {
    Optional<String> why = refuses(file);
    if (why.isPresent()) {
      return why;
    }
    try {
      System.load(file.toString());
      return Optional.empty();
    } catch (UnsatisfiedLinkError e) {
      return Optional.of(reason(e));
    }
  }

  /**
   * Why the file is not a library of this kind and of the bindings' ABI; the file is closed again.
   */
  Optional<String> refuses(Path file) {
    try (Arena arena = Arena.ofConfined()) {
      Optional<MemorySegment> version =
          SymbolLookup.libraryLookup(file, arena).find(kind.versionFunction());
      if (version.isEmpty()) {
        return Optional.of("is not " + kind.title() + ": it has no " + kind.versionFunction());
      }
      MethodHandle call =
          Linker.nativeLinker()
              .downcallHandle(version.get(), FunctionDescriptor.of(ValueLayout.JAVA_INT));
      int found = (int) call.invokeExact();
      int expected = kind.abi();
      return found == expected
          ? Optional.empty()
          : Optional.of("found ABI version " + found + ", expected " + expected);
    } catch (IllegalArgumentException e) {
      return Optional.of(whyNotLoaded(file));
    } catch (IllegalCallerException e) {
      return Optional.of("native access is denied: start java with --enable-native-access");
    } catch (Throwable e) {
      return Optional.of("cannot be called: " + e);
    }
  }

  /** {@code libraryLookup} gives no reason; {@code System.load} repeats the operating system's. */
  private static String whyNotLoaded(Path file) {
    try {
      System.load(file.toString());
      return "cannot be opened";
    } catch (UnsatisfiedLinkError e) {
      return reason(e);
    }
  }

  private static String reason(UnsatisfiedLinkError e) {
    return "cannot be loaded: " + String.valueOf(e.getMessage()).lines().findFirst().orElse("");
  }
}
