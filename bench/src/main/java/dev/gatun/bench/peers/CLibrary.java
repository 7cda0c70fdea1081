package dev.gatun.bench.peers;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * A C library's functions by name. What is timed goes through a {@link #handle}; the other calls
 * are described by their arguments: Integer is {@code int}, Long {@code int64_t} or {@code size_t},
 * Boolean {@code bool}, a segment a pointer.
 */
final class CLibrary {
  private final SymbolLookup lookup;

  CLibrary(SymbolLookup lookup) {
    this.lookup = lookup;
  }

  /** A function that is called often. */
  MethodHandle handle(String name, FunctionDescriptor descriptor) {
    return Linker.nativeLinker().downcallHandle(lookup.findOrThrow(name), descriptor);
  }

  /** Calls a function that returns nothing. */
  void run(String name, Object... arguments) {
    invoke(lookup.findOrThrow(name), null, arguments);
  }

  /** Calls a function that returns an int. */
  int number(String name, Object... arguments) {
    return (int) value(lookup.findOrThrow(name), ValueLayout.JAVA_INT, arguments);
  }

  /** Calls a function that returns a size_t. */
  long size(String name, Object... arguments) {
    return (long) value(lookup.findOrThrow(name), ValueLayout.JAVA_LONG, arguments);
  }

  /** Calls a function that returns a bool. */
  boolean truth(String name, Object... arguments) {
    return (boolean) value(lookup.findOrThrow(name), ValueLayout.JAVA_BOOLEAN, arguments);
  }

  /** Calls a function that returns a pointer. */
  MemorySegment pointer(String name, Object... arguments) {
    return pointer(lookup.findOrThrow(name), arguments);
  }

  /** Calls a function by its address. */
  static MemorySegment pointer(MemorySegment function, Object... arguments) {
    return (MemorySegment) value(function, ValueLayout.ADDRESS, arguments);
  }

  private static Object value(MemorySegment function, MemoryLayout result, Object... arguments) {
    Object value = invoke(function, result, arguments);
    if (value == null) {
      throw new IllegalStateException("a function that returns something returned nothing");
    }
    return value;
  }

  private static @Nullable Object invoke(
      MemorySegment function, @Nullable MemoryLayout result, Object... arguments) {
    MemoryLayout[] layouts =
        Arrays.stream(arguments).map(CLibrary::layout).toArray(MemoryLayout[]::new);
    FunctionDescriptor descriptor =
        result == null
            ? FunctionDescriptor.ofVoid(layouts)
            : FunctionDescriptor.of(result, layouts);
    try {
      return Linker.nativeLinker()
          .downcallHandle(function, descriptor)
          .invokeWithArguments(arguments);
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  private static MemoryLayout layout(Object argument) {
    return switch (argument) {
      case Integer i -> ValueLayout.JAVA_INT;
      case Long l -> ValueLayout.JAVA_LONG;
      case Boolean b -> ValueLayout.JAVA_BOOLEAN;
      case MemorySegment s -> ValueLayout.ADDRESS;
      default -> throw new IllegalArgumentException("no C type for " + argument.getClass());
    };
  }
}
