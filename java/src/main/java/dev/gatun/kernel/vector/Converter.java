package dev.gatun.kernel.vector;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.Fp8;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** Converts numbers a piece at a time, through floats. Not thread-safe. */
final class Converter {
  private final Encoding from;
  private final Encoding to;
  private final boolean clamp;
  private final float max;
  private final float[] table;
  private final float[] floats = new float[Rows.PIECE];
  private final byte[] bytes = new byte[Rows.PIECE];
  private final short[] halves = new short[Rows.PIECE];

  Converter(Encoding from, Encoding to, boolean saturate) {
    this.from = from;
    this.to = to;
    clamp = saturate && Fp8.is(to);
    max = clamp ? Fp8.max(to) : 0;
    table = from.isPlain() ? new float[0] : Codebooks.table(from);
  }

  /** Numbers {@code first .. first+count-1}. */
  void convert(MemorySegment src, MemorySegment dst, long first, long count) {
    for (long done = 0; done < count; done += Rows.PIECE) {
      piece(src, dst, first + done, (int) Math.min(Rows.PIECE, count - done));
    }
  }

  private void piece(MemorySegment src, MemorySegment dst, long first, int count) {
    if (from.isPlain()) {
      Lanes.load(from, src, first, floats, 0, count, halves);
    } else {
      MemorySegment.copy(src, ValueLayout.JAVA_BYTE, first, bytes, 0, count);
      CodeRows.lookup256(bytes, count, table, floats);
    }
    if (clamp) {
      for (int i = 0; i < count; i++) {
        floats[i] = Math.min(Math.max(floats[i], -max), max); // NaN stays
      }
    }
    if (to.isPlain()) {
      Lanes.store(to, floats, 0, count, dst, first, halves);
    } else {
      Fp8Lanes.encode(to, floats, count, bytes);
      MemorySegment.copy(bytes, 0, dst, ValueLayout.JAVA_BYTE, first, count);
    }
  }
}
