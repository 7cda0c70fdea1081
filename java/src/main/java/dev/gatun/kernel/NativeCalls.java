package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Rounding;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.Arrays;

/**
 * The calls into libgatun, bound once. What takes a {@code gatun_matrix} takes the memory that the
 * struct points to as well, as further arguments: the linker then holds it open for as long as the
 * call runs, and refuses memory that is closed or another thread's, which a pointer within a struct
 * would not tell it. The C function does not look at them; the caller's stack takes them away, as
 * every calling convention that Java runs on has it.
 */
final class NativeCalls {
  /** A matrix's pieces of memory, and one more for an operation's input or output. */
  static final int HELD = 10;

  private static final MethodHandle DEQUANTIZE =
      holding(gatun_h.gatun_dequantize$address(), gatun_h.gatun_dequantize$descriptor());
  private static final MethodHandle EMBEDDING =
      holding(gatun_h.gatun_embedding$address(), gatun_h.gatun_embedding$descriptor());
  private static final MethodHandle QUANTIZE =
      holding(gatun_h.gatun_quantize$address(), gatun_h.gatun_quantize$descriptor());
  private static final MethodHandle DEVIATION =
      holding(gatun_h.gatun_deviation$address(), gatun_h.gatun_deviation$descriptor());
  private static final MethodHandle PACKED_SIZE =
      holding(gatun_h.gatun_packed_size$address(), gatun_h.gatun_packed_size$descriptor());
  private static final MethodHandle PACK =
      holding(gatun_h.gatun_pack$address(), gatun_h.gatun_pack$descriptor());
  private static final MethodHandle PACKED_IS =
      holding(gatun_h.gatun_packed_is$address(), gatun_h.gatun_packed_is$descriptor());
  private static final MethodHandle UNPACK =
      holding(gatun_h.gatun_unpack$address(), gatun_h.gatun_unpack$descriptor());
  private static final MethodHandle LINEAR = gatun_h.gatun_linear$handle();

  private static final MethodHandle LINEAR_STATIC = gatun_h.gatun_linear_static$handle();
  private static final MethodHandle LINEAR_STATIC_SHORT =
      Linker.nativeLinker()
          .downcallHandle(
              gatun_h.gatun_linear_static$address(),
              gatun_h.gatun_linear_static$descriptor(),
              Linker.Option.critical(true));
  private static final MethodHandle ROUND =
      Linker.nativeLinker()
          .downcallHandle(
              gatun_h.gatun_round_static$address(),
              gatun_h.gatun_round_static$descriptor(),
              Linker.Option.critical(true));

  /** Numbers that are rounded in one call: the garbage collector waits for no more of them. */
  private static final long ROUNDED_AT_ONCE = 1 << 18;

  /** Takes heap arrays too; the garbage collector waits while it runs. */
  private static final MethodHandle LINEAR_SHORT =
      Linker.nativeLinker()
          .downcallHandle(
              gatun_h.gatun_linear$address(),
              gatun_h.gatun_linear$descriptor(),
              Linker.Option.critical(true));

  private NativeCalls() {}

  private static MethodHandle holding(MemorySegment address, FunctionDescriptor descriptor) {
    MemoryLayout[] held = new MemoryLayout[HELD];
    Arrays.fill(held, ValueLayout.ADDRESS);
    MethodHandle handle =
        Linker.nativeLinker().downcallHandle(address, descriptor.appendArgumentLayouts(held));
    return handle.asSpreader(MemorySegment[].class, HELD);
  }

  static void dequantize(
      NativeMatrix matrix,
      long row0,
      long rows,
      MemorySegment out,
      int outType,
      int isa,
      int threads) {
    int status;
    try {
      status =
          (int)
              DEQUANTIZE.invokeExact(
                  matrix.struct(),
                  row0,
                  rows,
                  out,
                  outType,
                  matrix.k(),
                  isa,
                  threads,
                  matrix.held());
    } catch (Throwable e) {
      throw rethrow(e);
    }
    check(status);
  }

  static void embedding(
      NativeMatrix matrix,
      MemorySegment ids,
      long count,
      MemorySegment out,
      int outType,
      int isa,
      int threads) {
    int status;
    try {
      status =
          (int)
              EMBEDDING.invokeExact(
                  matrix.struct(),
                  ids,
                  count,
                  out,
                  outType,
                  matrix.k(),
                  isa,
                  threads,
                  matrix.held());
    } catch (Throwable e) {
      throw rethrow(e);
    }
    check(status);
  }

  static void quantize(
      NativeMatrix matrix, MemorySegment rule, MemorySegment w, int type, int isa, int threads) {
    int status;
    try {
      status =
          (int)
              QUANTIZE.invokeExact(
                  matrix.struct(), rule, w, type, matrix.k(), isa, threads, matrix.held());
    } catch (Throwable e) {
      throw rethrow(e);
    }
    check(status);
  }

  /** Fills three doubles. */
  static void deviation(
      NativeMatrix matrix,
      long row0,
      long rows,
      MemorySegment w,
      int type,
      MemorySegment sums,
      int isa) {
    int status;
    try {
      status =
          (int)
              DEVIATION.invokeExact(
                  matrix.struct(), row0, rows, w, type, matrix.k(), sums, isa, matrix.held());
    } catch (Throwable e) {
      throw rethrow(e);
    }
    check(status);
  }

  /** Returns the status: a matrix that cannot be packed is no failure to the one who asks. */
  static int packedSize(NativeMatrix matrix, MemorySegment size) {
    try {
      return (int) PACKED_SIZE.invokeExact(matrix.struct(), size, matrix.held());
    } catch (Throwable e) {
      throw rethrow(e);
    }
  }

  /** Zeros for a packed weight, on large pages where there are any, until the arena is closed. */
  static MemorySegment allocate(long size, Arena arena) {
    try (Arena call = Arena.ofConfined()) {
      MemorySegment out = call.allocate(ValueLayout.ADDRESS);
      check(gatun_h.gatun_memory_allocate(size, out));
      return out.get(ValueLayout.ADDRESS, 0)
          .reinterpret(size, arena, memory -> check(gatun_h.gatun_memory_free(memory, size)));
    }
  }

  /** Returns the status. */
  static int packedIs(NativeMatrix matrix, MemorySegment packed) {
    try {
      return (int) PACKED_IS.invokeExact(matrix.struct(), packed, packed.byteSize(), matrix.held());
    } catch (Throwable e) {
      throw rethrow(e);
    }
  }

  static void pack(NativeMatrix matrix, MemorySegment packed, int threads) {
    int status;
    try {
      status =
          (int)
              PACK.invokeExact(matrix.struct(), packed, packed.byteSize(), threads, matrix.held());
    } catch (Throwable e) {
      throw rethrow(e);
    }
    check(status);
  }

  static void unpack(MemorySegment packed, NativeMatrix into) {
    int status;
    try {
      status = (int) UNPACK.invokeExact(packed, packed.byteSize(), into.struct(), into.held());
    } catch (Throwable e) {
      throw rethrow(e);
    }
    check(status);
  }

  /**
   * {@code gatun_linear}, whose parameters these are in its order.
   *
   * @param isShort whether the garbage collector may wait for it; only then can there be heap
   *     memory
   */
  static void linear(
      boolean isShort,
      MemorySegment packed,
      long packedSize,
      MemorySegment x,
      int xType,
      long ldx,
      long m,
      MemorySegment y,
      int yType,
      long ldy,
      MemorySegment bias,
      MemorySegment xMultiplier,
      int activation,
      int combine,
      MemorySegment other,
      long ldOther,
      int compute,
      int isa,
      int threads,
      MemorySegment workspace,
      long workspaceSize) {
    int status;
    try {
      // Two call sites: a handle must be a constant where it is invoked.
      status =
          isShort
              ? (int)
                  LINEAR_SHORT.invokeExact(
                      packed,
                      packedSize,
                      x,
                      xType,
                      ldx,
                      m,
                      y,
                      yType,
                      ldy,
                      bias,
                      xMultiplier,
                      activation,
                      combine,
                      other,
                      ldOther,
                      compute,
                      isa,
                      threads,
                      workspace,
                      workspaceSize)
              : (int)
                  LINEAR.invokeExact(
                      packed,
                      packedSize,
                      x,
                      xType,
                      ldx,
                      m,
                      y,
                      yType,
                      ldy,
                      bias,
                      xMultiplier,
                      activation,
                      combine,
                      other,
                      ldOther,
                      compute,
                      isa,
                      threads,
                      workspace,
                      workspaceSize);
    } catch (Throwable e) {
      throw rethrow(e);
    }
    check(status);
  }

  /** {@code gatun_linear_static}, whose parameters these are in its order. */
  static void linearStatic(
      boolean isShort,
      MemorySegment packed,
      long packedSize,
      MemorySegment x,
      int xType,
      long ldx,
      float xScale,
      long m,
      MemorySegment y,
      int yType,
      long ldy,
      MemorySegment bias,
      int activation,
      int combine,
      MemorySegment other,
      long ldOther,
      int isa,
      int threads,
      MemorySegment workspace,
      long workspaceSize) {
    int status;
    try {
      status =
          isShort
              ? (int)
                  LINEAR_STATIC_SHORT.invokeExact(
                      packed,
                      packedSize,
                      x,
                      xType,
                      ldx,
                      xScale,
                      m,
                      y,
                      yType,
                      ldy,
                      bias,
                      activation,
                      combine,
                      other,
                      ldOther,
                      isa,
                      threads,
                      workspace,
                      workspaceSize)
              : (int)
                  LINEAR_STATIC.invokeExact(
                      packed,
                      packedSize,
                      x,
                      xType,
                      ldx,
                      xScale,
                      m,
                      y,
                      yType,
                      ldy,
                      bias,
                      activation,
                      combine,
                      other,
                      ldOther,
                      isa,
                      threads,
                      workspace,
                      workspaceSize);
    } catch (Throwable e) {
      throw rethrow(e);
    }
    check(status);
  }

  /** {@code gatun_round_static}, on native memory or heap arrays. */
  static void round(
      Rounding rounding,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long rows,
      long columns,
      MemorySegment xMultiplier,
      MemorySegment y,
      Encoding yType,
      long ldy,
      int isa,
      int threads) {
    long atOnce = Math.max(1, ROUNDED_AT_ONCE / Math.max(1, columns));
    for (long row = 0; row < rows; row += atOnce) {
      int status;
      try {
        status =
            (int)
                ROUND.invokeExact(
                    x.asSlice(row * ldx * (xType.bits() / 8)),
                    xType.id(),
                    ldx,
                    Math.min(atOnce, rows - row),
                    columns,
                    xMultiplier,
                    y.asSlice(row * ldy * (yType.bits() / 8)),
                    yType.id(),
                    ldy,
                    rounding.encoding().id(),
                    rounding.scale(),
                    rounding.reciprocal() ? 1 : 0,
                    isa,
                    threads);
      } catch (Throwable e) {
        throw rethrow(e);
      }
      check(status);
    }
  }

  /** Turns a status that is not OK into an exception with the library's line of detail. */
  static void check(int status) {
    if (status != gatun_h.GATUN_OK()) {
      throw new GatunException("native: " + detail(status));
    }
  }

  /** What went wrong in the calling thread's last call. */
  static String detail(int status) {
    String detail = gatun_h.gatun_last_error().getString(0);
    return detail.isEmpty() ? gatun_h.gatun_status_string(status).getString(0) : detail;
  }

  private static RuntimeException rethrow(Throwable e) {
    return switch (e) {
      case RuntimeException runtime -> runtime;
      case Error error -> throw error;
      default -> new IllegalStateException("a call into libgatun threw", e);
    };
  }
}
