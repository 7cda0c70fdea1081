package dev.gatun.bench.open;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.SplittableRandom;

/**
 * A checkpoint in ComfyUI's {@code float8_e4m3fn} with two layers: {@link #HOLE}, as large as one
 * likes, which is a hole in the file and takes no disk, and behind it {@link #LAYER} with random
 * codes.
 */
final class SparseCheckpoint {
  static final String HOLE = "hole";
  static final String LAYER = "layer";
  private static final float SCALE = 0.01f;

  /** Clears a bit of the exponent, so that no code is NaN. */
  private static final int FINITE = 0xBF;

  private SparseCheckpoint() {}

  /**
   * Writes it.
   *
   * @param file is emptied first
   * @param hole bytes of the hole, at least K; rounded up to whole rows
   * @param n rows of the layer
   * @param k columns of both
   */
  static void write(Path file, long hole, int n, int k) throws IOException {
    long rows = Math.ceilDiv(hole, k);
    long codes = rows * k;
    long scales = codes + (long) n * k;
    byte[] json = header(rows, codes, scales, n, k).getBytes(StandardCharsets.UTF_8);
    try (FileChannel channel =
        FileChannel.open(
            file,
            StandardOpenOption.CREATE,
            StandardOpenOption.TRUNCATE_EXISTING,
            StandardOpenOption.WRITE)) {
      ByteBuffer head = little(Long.BYTES + json.length).putLong(json.length).put(json);
      long data = head.capacity();
      write(channel, head, 0);
      SplittableRandom random = new SplittableRandom(1);
      byte[] row = new byte[k];
      for (long i = 0; i < n; i++) {
        random.nextBytes(row);
        for (int j = 0; j < k; j++) {
          row[j] &= (byte) FINITE;
        }
        write(channel, little(k).put(row), data + codes + i * k);
      }
      write(channel, little(2 * Float.BYTES).putFloat(SCALE).putFloat(SCALE), data + scales);
    }
  }

  private static String header(long rows, long codes, long scales, int n, int k) {
    String mark = "{\\\"format\\\":\\\"float8_e4m3fn\\\"}";
    String metadata =
        "{\\\"layers\\\":{\\\"%s\\\":%s,\\\"%s\\\":%s}}".formatted(HOLE, mark, LAYER, mark);
    String tensor = "\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%d,%d]}";
    String json =
        "{\"__metadata__\":{\"_quantization_metadata\":\"%s\"},%s,%s,%s,%s}"
            .formatted(
                metadata,
                tensor.formatted(HOLE + ".weight", "F8_E4M3", rows + "," + k, 0, codes),
                tensor.formatted(LAYER + ".weight", "F8_E4M3", n + "," + k, codes, scales),
                tensor.formatted(HOLE + ".weight_scale", "F32", "", scales, scales + 4),
                tensor.formatted(LAYER + ".weight_scale", "F32", "", scales + 4, scales + 8));
    return json + " ".repeat(Math.floorMod(-json.length(), 8));
  }

  private static ByteBuffer little(int bytes) {
    return ByteBuffer.allocate(bytes).order(ByteOrder.LITTLE_ENDIAN);
  }

  private static void write(FileChannel channel, ByteBuffer filled, long at) throws IOException {
    ByteBuffer rest = filled.flip();
    long to = at;
    while (rest.hasRemaining()) {
      to += channel.write(rest, to);
    }
  }
}
