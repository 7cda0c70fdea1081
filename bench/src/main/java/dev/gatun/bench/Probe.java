package dev.gatun.bench;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_DOUBLE;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.gatun.GatunException;
import dev.gatun.bindings.NativeLibrary;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.foreign.AddressLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import org.jspecify.annotations.Nullable;

/**
 * What this machine can do at most, measured by {@code native/bench}: the library is loaded for as
 * long as the probe is open. Functions are described in {@code probe.h}.
 */
public final class Probe implements AutoCloseable {
  /** What a peak is of. */
  public enum Peak {
    /** Float products and sums. */
    F32(1),
    /** Products of bfloat16, float sums. */
    BF16(2),
    /** Products and sums of 8-bit integers. */
    I8(3);

    private final int id;

    Peak(int id) {
      this.id = id;
    }
  }

  private final Arena arena = Arena.ofShared();
  private final MethodHandle peak;
  private final MethodHandle peakName;
  private final MethodHandle allocate;
  private final MethodHandle free;
  private final MethodHandle read;
  private final MethodHandle copy;
  private final MethodHandle call;
  private final MethodHandle linear;
  private final MethodHandle cudaLinear;

  private Probe(Path library) {
    SymbolLookup lookup = SymbolLookup.libraryLookup(library, arena);
    peak = handle(lookup, "gatun_probe_peak", JAVA_DOUBLE, JAVA_INT, JAVA_INT, JAVA_INT);
    AddressLayout text = ADDRESS.withTargetLayout(MemoryLayout.sequenceLayout(256, JAVA_BYTE));
    peakName = handle(lookup, "gatun_probe_peak_name", text, JAVA_INT);
    allocate = handle(lookup, "gatun_probe_allocate", ADDRESS, JAVA_LONG);
    free =
        Linker.nativeLinker()
            .downcallHandle(
                lookup.findOrThrow("gatun_probe_free"), FunctionDescriptor.ofVoid(ADDRESS));
    read = handle(lookup, "gatun_probe_read", JAVA_DOUBLE, ADDRESS, JAVA_LONG, JAVA_INT, JAVA_INT);
    copy =
        handle(
            lookup,
            "gatun_probe_copy",
            JAVA_DOUBLE,
            ADDRESS,
            ADDRESS,
            JAVA_LONG,
            JAVA_INT,
            JAVA_INT,
            JAVA_INT);
    call = handle(lookup, "gatun_probe_call", JAVA_DOUBLE, ADDRESS, JAVA_LONG);
    linear =
        handle(
            lookup,
            "gatun_probe_linear",
            JAVA_DOUBLE,
            ADDRESS,
            JAVA_LONG,
            ADDRESS,
            JAVA_LONG,
            ADDRESS,
            JAVA_LONG,
            JAVA_LONG,
            ADDRESS,
            JAVA_LONG,
            JAVA_INT,
            JAVA_INT,
            ADDRESS,
            JAVA_LONG);
    cudaLinear =
        handle(
            lookup,
            "gatun_probe_cuda_linear",
            JAVA_DOUBLE,
            ADDRESS,
            JAVA_LONG,
            JAVA_INT,
            ADDRESS,
            JAVA_LONG,
            JAVA_LONG,
            JAVA_LONG,
            JAVA_LONG,
            JAVA_LONG,
            JAVA_INT,
            JAVA_LONG,
            JAVA_LONG,
            JAVA_LONG);
  }

  private static MethodHandle handle(
      SymbolLookup lookup, String name, MemoryLayout result, MemoryLayout... arguments) {
    return Linker.nativeLinker()
        .downcallHandle(lookup.findOrThrow(name), FunctionDescriptor.of(result, arguments));
  }

  /**
   * Loads the library.
   *
   * @throws GatunException when this build has none
   */
  public static Probe open() {
    String resource =
        "META-INF/native/" + NativeLibrary.platform() + "/" + System.mapLibraryName("gatun_probe");
    @Nullable Path file = null;
    try (InputStream in = Probe.class.getClassLoader().getResourceAsStream(resource)) {
      if (in == null) {
        throw new GatunException(
            "found no "
                + resource
                + " on the class path, expected the probe library (built with -Dgatun.native=on)");
      }
      file = Files.createTempFile("gatun-probe-", ".so");
      Files.copy(in, file, StandardCopyOption.REPLACE_EXISTING);
      return new Probe(file);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    } finally {
      delete(file);
    }
  }

  /** A loaded library stays mapped without its name. */
  private static void delete(@Nullable Path file) {
    try {
      if (file != null) {
        Files.deleteIfExists(file);
      }
    } catch (IOException e) {
      file.toFile().deleteOnExit();
    }
  }

  /**
   * Billions of operations a second of register loops; 0 when the processor has no instruction for
   * it.
   */
  public double peak(Peak kind, int threads, int rounds) {
    return number(peak, kind.id, threads, rounds);
  }

  /** The instruction that {@link #peak} times; empty when there is none. */
  public String peakName(Peak kind) {
    try {
      return ((MemorySegment) peakName.invoke(kind.id)).getString(0);
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  /**
   * Memory that has been written to, on large pages where the system has them, until the arena is
   * closed.
   *
   * @throws GatunException when there is not as much
   */
  public MemorySegment allocate(long size, Arena arena) {
    try {
      MemorySegment memory = (MemorySegment) allocate.invoke(size);
      if (memory.equals(MemorySegment.NULL)) {
        throw new GatunException("found no memory, expected " + size + " bytes for the probe");
      }
      return memory.reinterpret(size, arena, this::free);
    } catch (GatunException e) {
      throw e;
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  private void free(MemorySegment memory) {
    try {
      free.invoke(memory);
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  /** GB a second read from native memory. */
  public double read(MemorySegment data, int threads, int rounds) {
    return number(read, data, data.byteSize(), threads, rounds);
  }

  /** GB a second, read plus written, of a copy between native memory of the same size. */
  public double copy(
      MemorySegment to, MemorySegment from, boolean streaming, int threads, int rounds) {
    return number(copy, to, from, from.byteSize(), streaming ? 1 : 0, threads, rounds);
  }

  /**
   * Nanoseconds of {@code count} calls, from C, of a function without arguments that returns an
   * int.
   */
  public double call(MemorySegment function, long count) {
    return number(call, function, count);
  }

  /**
   * Nanoseconds of {@code count} calls, from C, of {@code gatun_linear} on one thread; negative
   * when one fails.
   */
  public double linear(
      MemorySegment function,
      long count,
      MemorySegment packed,
      MemorySegment x,
      long k,
      long m,
      MemorySegment y,
      long n,
      int compute,
      MemorySegment workspace) {
    return number(
        linear,
        function,
        count,
        packed,
        packed.byteSize(),
        x,
        k,
        m,
        y,
        n,
        compute,
        1,
        workspace,
        workspace.byteSize());
  }

  /**
   * Nanoseconds in which {@code gatun_cuda_linear} is given {@code count} products from C; negative
   * when one fails.
   *
   * @param packed the {@code gatun_cuda_packed}
   * @param x address of M × K floats on the device
   * @param y address of M × N floats on the device
   * @param workspace address on the device
   * @param stream handle of the stream
   */
  public double cudaLinear(
      MemorySegment function,
      long count,
      int device,
      MemorySegment packed,
      long x,
      long k,
      long m,
      long y,
      long n,
      int compute,
      long workspace,
      long workspaceSize,
      long stream) {
    return number(
        cudaLinear,
        function,
        count,
        device,
        packed,
        x,
        k,
        m,
        y,
        n,
        compute,
        workspace,
        workspaceSize,
        stream);
  }

  private static double number(MethodHandle function, Object... arguments) {
    try {
      return (double) function.invokeWithArguments(arguments);
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  /** Unloads the library. */
  @Override
  public void close() {
    arena.close();
  }
}
