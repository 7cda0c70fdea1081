package dev.gatun.bench.quantize;

import dev.gatun.Encoding;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** A safetensors file of layers of normal numbers, as large as one likes. */
final class RandomCheckpoint {
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Numbers that are drawn; every piece of the file begins elsewhere among them. */
  private static final int NUMBERS = 1 << 20;

  private RandomCheckpoint() {}

  /**
   * Writes it.
   *
   * @param type F32 or BF16
   */
  static void write(Path target, int layers, long n, long k, Encoding type) {
    Random random = new Random(1);
    int width = type.bits() / 8;
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    for (int i = 0; i < layers; i++) {
      entries.add(
          new SafetensorsWriter.Entry(
              "layers." + i + ".weight", DType.valueOf(type.name()), List.of(n, k)));
    }
    try (Arena arena = Arena.ofConfined();
        SafetensorsWriter writer = SafetensorsWriter.create(target, entries, Map.of())) {
      MemorySegment numbers = arena.allocate(2L * NUMBERS * width, 64);
      for (int i = 0; i < 2 * NUMBERS; i++) {
        int bits = Float.floatToRawIntBits((float) random.nextGaussian() * 0.02f);
        if (type == Encoding.F32) {
          numbers.set(INT, 4L * i, bits);
        } else {
          numbers.set(SHORT, 2L * i, (short) (bits >>> 16));
        }
      }
      for (SafetensorsWriter.Entry entry : entries) {
        long size = entry.byteSize();
        for (long at = 0; at < size; at += (long) NUMBERS * width) {
          long length = Math.min((long) NUMBERS * width, size - at);
          long from = (long) random.nextInt(NUMBERS) * width;
          writer.write(entry.name(), at, numbers.asSlice(from, length));
        }
      }
      writer.commit();
    }
  }
}
