package dev.gatun.kernel;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * A {@link Matrix} as a {@code gatun_matrix}, for the length of a call or two. Native memory is
 * pointed to as it lies; what lies in the heap, or not at a multiple of its numbers' size, is
 * copied into the arena. The matrix has been checked before.
 */
final class NativeMatrix {
  private record Copied(MemorySegment original, MemorySegment copy) {}

  private final Arena arena;
  private final long k;
  private final MemorySegment struct;
  private final MemorySegment[] held = new MemorySegment[NativeCalls.HELD];
  private final List<Copied> copied = new ArrayList<>();
  private int count;

  NativeMatrix(Matrix m, Arena arena) {
    this.arena = arena;
    this.k = m.k();
    Arrays.fill(held, MemorySegment.NULL);
    this.struct = MatrixStruct.of(m, arena, this::place);
  }

  private long place(MemorySegment memory, int alignment) {
    MemorySegment placed = memory;
    if (!memory.isNative() || memory.address() % alignment != 0) {
      placed = arena.allocate(memory.byteSize(), 64).copyFrom(memory);
      copied.add(new Copied(memory, placed));
    }
    hold(placed);
    return placed.address();
  }

  /** Has the linker hold this memory open during the calls as well. */
  void hold(MemorySegment memory) {
    held[count++] = memory;
  }

  /** Writes what was copied back to where it came from, after a call that filled the matrix. */
  void copyBack() {
    for (Copied c : copied) {
      c.original.copyFrom(c.copy);
    }
  }

  long k() {
    return k;
  }

  MemorySegment struct() {
    return struct;
  }

  MemorySegment[] held() {
    return held;
  }
}
