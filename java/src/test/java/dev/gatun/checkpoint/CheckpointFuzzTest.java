package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.Size;

/** Whatever the bytes are, opening a file and using its layers ends well or in a GatunException. */
class CheckpointFuzzTest {
  private static final String[][] CASES = {
    {"bnb", "nf4_nested_bf16"}, {"comfy", "float8_e4m3fn"}, {"quanto", "qint8_bf16"}, {"bnb", "odd"}
  };

  private static void open(byte[] bytes) throws IOException {
    Path path = Files.createTempFile("gatun-fuzz-", ".safetensors");
    try {
      Files.write(path, bytes);
      try (Checkpoint checkpoint = Checkpoint.open(path)) {
        checkpoint.unclaimed();
        for (String layer : checkpoint.layers().keySet()) {
          try {
            checkpoint.quantized(layer);
          } catch (GatunException expected) {
            // one layer may be broken
          }
        }
      } catch (GatunException expected) {
        // the only exception that there may be
      }
    } finally {
      Files.delete(path);
    }
  }

  @Property(tries = 300)
  void randomBytes(@ForAll @Size(max = 200) byte[] bytes) throws IOException {
    open(bytes);
  }

  @Property(tries = 300)
  void randomHeaders(@ForAll @Size(max = 200) byte[] bytes) throws IOException {
    open(
        ByteBuffer.allocate(8 + bytes.length)
            .order(ByteOrder.LITTLE_ENDIAN)
            .putLong(bytes.length)
            .put(bytes)
            .array());
  }

  @Property(tries = 400)
  void mutatedFiles(
      @ForAll @IntRange(max = 3) int which,
      @ForAll long seed,
      @ForAll @IntRange(min = 1, max = 6) int count)
      throws IOException {
    byte[] bytes =
        Files.readAllBytes(Golden.file(CASES[which][0], CASES[which][1], "model.safetensors"));
    int header = (int) ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).getLong();
    Random random = new Random(seed);
    for (int i = 0; i < count; i++) {
      // the header mostly; the marks and states are at the file's end
      int at =
          random.nextInt(4) > 0
              ? 8 + random.nextInt(header)
              : bytes.length - 1 - random.nextInt(600);
      byte[] likely =
          "0123456789-.,:{}[]\"_abe".getBytes(java.nio.charset.StandardCharsets.US_ASCII);
      bytes[at] =
          random.nextBoolean() ? likely[random.nextInt(likely.length)] : (byte) random.nextInt();
    }
    open(
        random.nextInt(8) == 0
            ? java.util.Arrays.copyOf(bytes, random.nextInt(bytes.length))
            : bytes);
  }
}
