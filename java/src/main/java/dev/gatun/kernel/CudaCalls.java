package dev.gatun.kernel;

import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** Statuses of libgatun_cuda as exceptions, and handles as return values. */
final class CudaCalls {
  /** A function that writes one handle or address and returns a status. */
  interface Maker {
    int make(MemorySegment out);
  }

  private CudaCalls() {}

  /** Turns a status that is not OK into an exception with the library's line of detail. */
  static void check(int status) {
    if (status != gatun_h.GATUN_OK()) {
      throw new GatunException("cuda: " + detail(status));
    }
  }

  /** What went wrong in the calling thread's last call. */
  static String detail(int status) {
    String detail = gatun_cuda_h.gatun_cuda_last_error().getString(0);
    return detail.isEmpty() ? "status " + status : detail;
  }

  static long made(Maker maker) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment out = arena.allocate(ValueLayout.JAVA_LONG);
      check(maker.make(out));
      return out.get(ValueLayout.JAVA_LONG, 0);
    }
  }
}
