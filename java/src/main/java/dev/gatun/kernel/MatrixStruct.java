package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.bindings.gatun_h;
import dev.gatun.bindings.gatun_matrix;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/** Writes a {@link Matrix} as a {@code gatun_matrix}, wherever its memory is to be pointed to. */
final class MatrixStruct {
  /** Says where a matrix's memory lies for the one who reads the struct. */
  interface Placer {
    /**
     * The address of that memory's bytes, or of a copy of them.
     *
     * @param alignment what the address must be a multiple of
     */
    long place(MemorySegment memory, int alignment);
  }

  private final Placer placer;
  private final MemorySegment struct;

  private MatrixStruct(Placer placer, MemorySegment struct) {
    this.placer = placer;
    this.struct = struct;
  }

  /** A new struct. Each piece of the matrix's memory is placed once. */
  static MemorySegment of(Matrix m, Arena arena, Placer placer) {
    MatrixStruct s = new MatrixStruct(placer, gatun_matrix.allocate(arena));
    s.codes(m);
    s.granularity(m);
    s.values(m);
    s.nested(m);
    s.extras(m);
    return s.struct;
  }

  private void codes(Matrix m) {
    gatun_matrix.n(struct, m.n());
    gatun_matrix.k(struct, m.k());
    gatun_matrix.encoding(struct, m.encoding().id());
    gatun_matrix.code_order(struct, m.codeOrder().id());
    gatun_matrix.code_row_stride(struct, m.codeRowStride());
    int alignment = m.encoding().isPlain() ? m.encoding().bits() / 8 : 1;
    gatun_matrix.codes(struct, place(m.codes(), alignment));
    gatun_matrix.codes_size(struct, m.codes().byteSize());
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
    gatun_matrix.scale_type(struct, type(m.scales()));
    gatun_matrix.scale_order(struct, m.scaleOrder().id());
    gatun_matrix.scales(struct, place(m.scales()));
    gatun_matrix.scales_size(struct, size(m.scales()));
    gatun_matrix.zero_type(struct, type(m.zeros()));
    gatun_matrix.zeros(struct, place(m.zeros()));
    gatun_matrix.zeros_size(struct, size(m.zeros()));
    gatun_matrix.offset_type(struct, type(m.offsets()));
    gatun_matrix.offset_sign(struct, m.offsetsSubtracted() ? -1 : 1);
    gatun_matrix.offsets(struct, place(m.offsets()));
    gatun_matrix.offsets_size(struct, size(m.offsets()));
  }

  private void nested(Matrix m) {
    if (m.nested().isPresent()) {
      Matrix.Nested nested = m.nested().get();
      gatun_matrix.nested_codebook(struct, place(nested.codebook(), Float.BYTES));
      gatun_matrix.nested_scales(struct, place(nested.scales(), Float.BYTES));
      gatun_matrix.nested_scales_size(struct, nested.scales().byteSize());
      gatun_matrix.nested_block(struct, nested.block());
      gatun_matrix.nested_offset(struct, nested.offset());
    }
  }

  private void extras(Matrix m) {
    if (m.codebook().isPresent()) {
      gatun_matrix.codebook(struct, place(m.codebook().get(), Float.BYTES));
      gatun_matrix.codebook_size(struct, m.codebook().get().byteSize());
    }
    if (m.columnGroups().isPresent()) {
      gatun_matrix.column_groups(struct, place(m.columnGroups().get(), Integer.BYTES));
      gatun_matrix.column_groups_size(struct, m.columnGroups().get().byteSize());
    }
    if (m.rowScales().isPresent()) {
      gatun_matrix.row_scales(struct, place(m.rowScales().get(), Float.BYTES));
      gatun_matrix.row_scales_size(struct, m.rowScales().get().byteSize());
    }
  }

  private static int type(Optional<Matrix.Values> values) {
    return values.map(v -> v.type().id()).orElse(gatun_h.GATUN_NONE());
  }

  private static long size(Optional<Matrix.Values> values) {
    return values.map(v -> v.data().byteSize()).orElse(0L);
  }

  private MemorySegment place(Optional<Matrix.Values> values) {
    return values.map(v -> place(v.data(), bytes(v.type()))).orElse(MemorySegment.NULL);
  }

  private static int bytes(Encoding type) {
    return Math.max(1, type.bits() / 8);
  }

  private MemorySegment place(MemorySegment memory, int alignment) {
    return MemorySegment.ofAddress(placer.place(memory, alignment));
  }
}
