package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.bindings.gatun_h;
import dev.gatun.bindings.gatun_matrix;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

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
    this.struct = gatun_matrix.allocate(arena);
    Arrays.fill(held, MemorySegment.NULL);
    codes(m);
    granularity(m);
    values(m);
    nested(m);
    extras(m);
  }

  private void codes(Matrix m) {
    MemorySegment codes = place(m.codes(), m.encoding().isPlain() ? m.encoding().bits() / 8 : 1);
    gatun_matrix.n(struct, m.n());
    gatun_matrix.k(struct, m.k());
    gatun_matrix.encoding(struct, m.encoding().id());
    gatun_matrix.code_order(struct, m.codeOrder().id());
    gatun_matrix.code_row_stride(struct, m.codeRowStride());
    gatun_matrix.codes(struct, codes);
    gatun_matrix.codes_size(struct, codes.byteSize());
    gatun_matrix.zero_point(struct, m.zeroPoint());
    gatun_matrix.global_scale(struct, m.globalScale());
    gatun_matrix.arithmetic(struct, m.arithmetic().id());
    gatun_matrix.result(struct, m.result().id());
    gatun_matrix.rotation(struct, m.rotation());
  }

  private void granularity(Matrix m) {
    switch (m.granularity()) {
      case Granularity.Tile(long rows, long cols, long rowStride, long colStride) -> {
        gatun_matrix.block_rows(struct, rows);
        gatun_matrix.block_cols(struct, cols);
        gatun_matrix.scale_row_stride(struct, rowStride);
        gatun_matrix.scale_col_stride(struct, colStride);
      }
      case Granularity.Flat(long block) -> gatun_matrix.flat_block(struct, block);
    }
  }

  private void values(Matrix m) {
    MemorySegment scales = place(m.scales());
    gatun_matrix.scale_type(struct, type(m.scales()));
    gatun_matrix.scale_order(struct, m.scaleOrder().id());
    gatun_matrix.scales(struct, scales);
    gatun_matrix.scales_size(struct, scales.byteSize());
    MemorySegment zeros = place(m.zeros());
    gatun_matrix.zero_type(struct, type(m.zeros()));
    gatun_matrix.zeros(struct, zeros);
    gatun_matrix.zeros_size(struct, zeros.byteSize());
    MemorySegment offsets = place(m.offsets());
    gatun_matrix.offset_type(struct, type(m.offsets()));
    gatun_matrix.offset_sign(struct, m.offsetsSubtracted() ? -1 : 1);
    gatun_matrix.offsets(struct, offsets);
    gatun_matrix.offsets_size(struct, offsets.byteSize());
  }

  private void nested(Matrix m) {
    if (m.nested().isPresent()) {
      Matrix.Nested nested = m.nested().get();
      MemorySegment scales = place(nested.scales(), Float.BYTES);
      gatun_matrix.nested_codebook(struct, place(nested.codebook(), Float.BYTES));
      gatun_matrix.nested_scales(struct, scales);
      gatun_matrix.nested_scales_size(struct, scales.byteSize());
      gatun_matrix.nested_block(struct, nested.block());
      gatun_matrix.nested_offset(struct, nested.offset());
    }
  }

  private void extras(Matrix m) {
    if (m.codebook().isPresent()) {
      MemorySegment codebook = place(m.codebook().get(), Float.BYTES);
      gatun_matrix.codebook(struct, codebook);
      gatun_matrix.codebook_size(struct, codebook.byteSize());
    }
    if (m.columnGroups().isPresent()) {
      MemorySegment groups = place(m.columnGroups().get(), Integer.BYTES);
      gatun_matrix.column_groups(struct, groups);
      gatun_matrix.column_groups_size(struct, groups.byteSize());
    }
    if (m.rowScales().isPresent()) {
      MemorySegment rowScales = place(m.rowScales().get(), Float.BYTES);
      gatun_matrix.row_scales(struct, rowScales);
      gatun_matrix.row_scales_size(struct, rowScales.byteSize());
    }
  }

  private static int type(Optional<Matrix.Values> values) {
    return values.map(v -> v.type().id()).orElse(gatun_h.GATUN_NONE());
  }

  private MemorySegment place(Optional<Matrix.Values> values) {
    return values.map(v -> place(v.data(), size(v.type()))).orElse(MemorySegment.NULL);
  }

  private static int size(Encoding type) {
    return Math.max(1, type.bits() / 8);
  }

  private MemorySegment place(MemorySegment memory, int alignment) {
    MemorySegment placed = memory;
    if (!memory.isNative() || memory.address() % alignment != 0) {
      placed = arena.allocate(memory.byteSize(), 64).copyFrom(memory);
      copied.add(new Copied(memory, placed));
    }
    hold(placed);
    return placed;
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
