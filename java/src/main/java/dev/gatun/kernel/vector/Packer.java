package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Lanes.FLOAT;
import static dev.gatun.kernel.vector.Lanes.INT;
import static dev.gatun.kernel.vector.Lanes.SHORT;
import static dev.gatun.kernel.vector.Tiles.WIDTH;

import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.ScaleOrder;
import dev.gatun.kernel.codec.BlockParts;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** Moves codes, scales, zero points and offsets between a matrix and its panels. */
final class Packer {
  private final Matrix m;
  private final Panels panels;

  Packer(Matrix m, Panels panels) {
    this.m = m;
    this.panels = panels;
  }

  /** The scale column of each k, when the matrix names them. */
  static int @Nullable [] columnGroups(Matrix m) {
    if (m.columnGroups().isEmpty()) {
      return null;
    }
    int[] groups = new int[(int) m.k()];
    MemorySegment.copy(m.columnGroups().get(), INT, 0, groups, 0, groups.length);
    return groups;
  }

  /** How many groups there are. */
  static int count(int[] columnGroups) {
    int largest = -1;
    for (int group : columnGroups) {
      largest = Math.max(largest, group);
    }
    return largest + 1;
  }

  /** Fills one panel. */
  void pack(int panel) {
    int rows = rows(panel);
    BlockParts parts = BlockParts.of(m.encoding());
    if (parts != null) {
      for (int lane = 0; lane < rows; lane++) {
        blocks(panel, lane, parts);
      }
      return;
    }
    byte[] codes = new byte[Rows.PIECE];
    byte[] bytes = new byte[Rows.PIECE];
    for (int lane = 0; lane < rows; lane++) {
      long row = (long) panel * WIDTH + lane;
      parameters(panel, lane, row);
      if (panels.form == Panels.Form.PLAIN) {
        plain(panel, lane, row, true);
        continue;
      }
      for (int column = 0; column < panels.k; column += Rows.PIECE) {
        int count = Math.min(Rows.PIECE, panels.k - column);
        CodeRows.read(m, row, column, count, codes, bytes);
        put(panel, lane, column, codes, count);
      }
    }
  }

  /** Takes a row of self-contained blocks apart. */
  private void blocks(int panel, int lane, BlockParts parts) {
    int size = m.encoding().blockElements();
    long bytes = m.encoding().blockBytes();
    long stride = m.codeRowStride() == 0 ? m.k() / size * bytes : m.codeRowStride();
    long at = ((long) panel * WIDTH + lane) * stride;
    byte[] codes = new byte[size];
    for (int column = 0; column < panels.k; column += size) {
      float[] values = parts.codes(m.codes(), at);
      for (int i = 0; i < size; i++) {
        boolean table = panels.form == Panels.Form.NIBBLES;
        codes[i] = (byte) (table ? Arrays.binarySearch(panels.table, values[i] + 0f) : values[i]);
      }
      put(panel, lane, column, codes, size);
      groups(panels.scales, panel, lane, column, parts.scales(m.codes(), at));
      if (parts.hasOffsets()) {
        groups(panels.offsets, panel, lane, column, parts.offsets(m.codes(), at));
      }
      at += bytes;
    }
  }

  /** Stores what the elements of a block have, once for each group. */
  private void groups(@Nullable MemorySegment to, int panel, int lane, int column, float[] values) {
    if (to == null) {
      return;
    }
    for (int i = 0; i < values.length; i += panels.group) {
      long at = ((long) panel * panels.groups + panels.groupOf(column + i)) * WIDTH + lane;
      to.setAtIndex(FLOAT, at, values[i] * m.globalScale());
    }
  }

  private int rows(int panel) {
    return (int) Math.min(WIDTH, m.n() - (long) panel * WIDTH);
  }

  private void parameters(int panel, int lane, long row) {
    int column = 0;
    while (column < panels.k) {
      long at = ((long) panel * panels.groups + panels.groupOf(column)) * WIDTH + lane;
      if (panels.scales != null) {
        float scale = MatrixValues.scale(m, row, column);
        boolean then = m.scaleOrder() == ScaleOrder.THEN_GLOBAL;
        panels.scales.setAtIndex(FLOAT, at, then ? scale * m.globalScale() : scale);
      }
      if (panels.zeros != null) {
        panels.zeros.setAtIndex(FLOAT, at, MatrixValues.zero(m, row, column));
      }
      if (panels.offsets != null) {
        panels.offsets.setAtIndex(FLOAT, at, MatrixValues.offset(m, row, column));
      }
      column = panels.runEnd(column);
    }
    if (panels.rowScales != null) {
      panels.rowScales.setAtIndex(FLOAT, row, MatrixValues.rowScale(m, row));
    }
  }

  /** The byte of the panels in which the code of an element begins. */
  private long at(int panel, int lane, int column) {
    long start = panel * panels.panelBytes;
    return switch (panels.form) {
      case NIBBLES -> start + 4 * (column / 8 * (long) WIDTH + lane) + column % 8 / 2;
      case BYTES -> start + 4 * (column / 4 * (long) WIDTH + lane) + column % 4;
      case INTEGERS -> start + (long) column * WIDTH + lane;
      default -> throw new IllegalStateException("no codes in the form " + panels.form);
    };
  }

  /** Codes of a row from a column that is a multiple of 8 on. */
  private void put(int panel, int lane, int column, byte[] row, int count) {
    MemorySegment codes = panels.codes;
    if (panels.form == Panels.Form.NIBBLES) {
      for (int i = 0; i < count; i += 2) {
        int high = i + 1 < count ? row[i + 1] : 0;
        codes.set(ValueLayout.JAVA_BYTE, at(panel, lane, column + i), (byte) (row[i] | high << 4));
      }
      return;
    }
    int flip = panels.flip();
    for (int i = 0; i < count; i++) {
      codes.set(ValueLayout.JAVA_BYTE, at(panel, lane, column + i), (byte) (row[i] ^ flip));
    }
  }

  /** Moves one row of plain numbers in or out. */
  private void plain(int panel, int lane, long row, boolean in) {
    long size = m.encoding().bits() / 8;
    long from = m.codeRowStride() == 0 ? row * m.k() * size : row * m.codeRowStride();
    long to = panel * panels.panelBytes + lane * size;
    for (int column = 0; column < panels.k; column++) {
      MemorySegment source = in ? m.codes() : panels.codes;
      MemorySegment target = in ? panels.codes : m.codes();
      long sourceAt = in ? from : to;
      long targetAt = in ? to : from;
      if (size == 4) {
        target.set(INT, targetAt, source.get(INT, sourceAt));
      } else {
        target.set(SHORT, targetAt, source.get(SHORT, sourceAt));
      }
      from += size;
      to += WIDTH * size;
    }
  }

  /** Writes every code of the panels into the matrix. */
  void unpack() {
    for (long row = 0; row < m.n(); row++) {
      int panel = (int) (row / WIDTH);
      int lane = (int) (row % WIDTH);
      if (panels.form == Panels.Form.PLAIN) {
        plain(panel, lane, row, false);
        continue;
      }
      for (int column = 0; column < panels.k; column++) {
        int code = panels.codes.get(ValueLayout.JAVA_BYTE, at(panel, lane, column)) & 0xFF;
        if (panels.form == Panels.Form.NIBBLES) {
          code = code >>> 4 * (column % 2) & 0xF;
        }
        MatrixValues.putCode(m, row, column, code ^ panels.flip());
      }
    }
  }
}
