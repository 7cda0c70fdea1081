package dev.gatun.kernel;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/** Native memory that grows to what was needed most, and stays. One caller's at a time. */
final class NativeBuffer {
  private @Nullable Arena arena;
  private MemorySegment memory = MemorySegment.NULL;

  /** At least as many bytes, 64-byte aligned; what was in them is lost when it has to grow. */
  MemorySegment atLeast(long bytes) {
    if (memory.byteSize() < bytes) {
      close();
      Arena fresh = Arena.ofShared();
      arena = fresh;
      memory = fresh.allocate(bytes, 64);
    }
    return memory;
  }

  /** The first bytes of other memory. */
  MemorySegment copy(MemorySegment from, long bytes) {
    MemorySegment to = atLeast(bytes);
    MemorySegment.copy(from, 0, to, 0, bytes);
    return to;
  }

  void close() {
    if (arena != null) {
      arena.close();
    }
    arena = null;
    memory = MemorySegment.NULL;
  }
}
