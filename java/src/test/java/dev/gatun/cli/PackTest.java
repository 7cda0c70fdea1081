package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.Golden;
import dev.gatun.checkpoint.PackedFile;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.FileTime;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class PackTest {
  private static final String LAYER = "blocks.0.to_q";

  @TempDir Path temp;

  @BeforeEach
  void theLibraryIsBuilt() {
    assumeTrue(
        "on".equals(System.getProperty("gatun.test.native")), "the native library is switched off");
  }

  private Path copy(String family, String name) throws IOException {
    Path to = temp.resolve("model.safetensors");
    Files.copy(Golden.file(family, name, "model.safetensors"), to);
    Path config = Golden.dir(family, name).resolve("quantization_config.json");
    if (Files.exists(config)) {
      Files.copy(config, temp.resolve("quantization_config.json"));
    }
    return to;
  }

  private static float[] product(Path model, Compute compute) {
    try (Checkpoint checkpoint = Checkpoint.open(model);
        Device device = Device.of("native", 2);
        Linear layer = checkpoint.linear(LAYER, compute, device)) {
      float[] x = new float[3 * (int) layer.inFeatures()];
      float[] y = new float[3 * (int) layer.outFeatures()];
      for (int i = 0; i < x.length; i++) {
        x[i] = (float) Math.sin(i);
      }
      layer.forward(MemorySegment.ofArray(x), 3, MemorySegment.ofArray(y));
      return y;
    }
  }

  private static boolean isUsed(Path model) {
    try (Checkpoint checkpoint = Checkpoint.open(model)) {
      return checkpoint.packed().isPresent();
    }
  }

  /** Flips a bit of each of some bytes. */
  private static void change(Path file, long from, int count) throws IOException {
    try (FileChannel channel =
        FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
      ByteBuffer bytes = ByteBuffer.allocate(count);
      channel.read(bytes, from);
      for (int i = 0; i < count; i++) {
        bytes.put(i, (byte) (bytes.get(i) ^ 1));
      }
      channel.write(bytes.flip(), from);
    }
  }

  /** Where a layer's block begins. */
  private static JsonNode block(Path packed) throws IOException {
    byte[] all = Files.readAllBytes(packed);
    int length = (int) ByteBuffer.wrap(all).order(java.nio.ByteOrder.LITTLE_ENDIAN).getLong(8);
    String json = new String(all, 64, length, StandardCharsets.UTF_8);
    return new com.fasterxml.jackson.databind.ObjectMapper()
        .readTree(json)
        .get("layers")
        .get(LAYER);
  }

  @ParameterizedTest
  @CsvSource({
    "bnb,nf4_bf16,F32",
    "bnb,nf4_bf16,I8",
    "bnb,nf4_nested_fp16,F32",
    "comfy,float8_e4m3fn,BF16",
    "quanto,qint8_bf16,I8",
    "quanto,qint4_bf16,F32"
  })
  void whatIsMappedMultipliesAsWhatIsPacked(String family, String name, Compute compute)
      throws IOException {
    Path model = copy(family, name);
    float[] expected = product(model, compute);
    JsonNode json = Cli.run("pack", model, "--json").json();
    Path packed = PackedFile.beside(model);
    assertThat(json.get("output").asText()).isEqualTo(packed.toString());
    assertThat(json.get("packed").toString()).contains(LAYER);
    assertThat(json.get("bytesAfter").asLong()).isPositive();
    assertThat(isUsed(model)).isTrue();
    assertThat(product(model, compute)).isEqualTo(expected);
    Cli.run("pack", model, "--check").succeeds();

    // The product comes from the file: other codes there, another product.
    JsonNode block = block(packed);
    change(packed, block.get("offset").asLong() + 2048, 4096);
    assertThat(product(model, compute)).isNotEqualTo(expected);
    Cli.run("pack", model, "--check").fails(packed, "checksum");
    Cli.run("pack", model).succeeds();
    assertThat(product(model, compute)).isEqualTo(expected);
  }

  @Test
  void whatIsPackedOfAnotherStateOfTheCheckpointIsNotUsed() throws IOException {
    Path model = copy("bnb", "nf4_bf16");
    float[] expected = product(model, Compute.F32);
    Cli.run("pack", model).succeeds();
    Files.setLastModifiedTime(model, FileTime.fromMillis(1_000_000));
    assertThat(isUsed(model)).isFalse();
    assertThat(product(model, Compute.F32)).isEqualTo(expected);
    Cli.run("pack", model, "--check").fails(PackedFile.beside(model), "pack it again");
    Cli.run("pack", model).succeeds();
    assertThat(isUsed(model)).isTrue();
  }

  @Test
  void aDamagedFileIsRefused() throws IOException {
    Path model = copy("bnb", "nf4_bf16");
    Cli.run("pack", model).succeeds();
    Path packed = PackedFile.beside(model);
    byte[] whole = Files.readAllBytes(packed);
    for (int length : new int[] {0, 8, 63, 64, 100, whole.length / 2, whole.length - 1}) {
      Files.write(packed, java.util.Arrays.copyOf(whole, length));
      assertThat(isUsed(model)).as("%d bytes", length).isFalse();
      Cli.run("pack", model, "--check").fails(packed);
    }
    for (int at : new int[] {0, 8, 15, 16, 47, 64, 200}) { // magic, length, checksum, table
      Files.write(packed, whole);
      change(packed, at, 1);
      assertThat(isUsed(model)).as("byte %d", at).isFalse();
    }
    Files.write(packed, whole);
    long offset = block(packed).get("offset").asLong();
    for (int at : new int[] {0, 8, 24, 32, 72, 400}) { // the block's own header
      Files.write(packed, whole);
      change(packed, offset + at, 1);
      assertThatThrownBy(() -> product(model, Compute.F32))
          .isInstanceOf(GatunException.class)
          .hasMessageContainingAll(packed.toString(), LAYER, "pack it again");
    }
  }

  @Test
  void anotherBackendDoesNotNeedIt() throws IOException {
    Path model = copy("bnb", "nf4_bf16");
    Cli.run("pack", model).succeeds();
    try (Checkpoint checkpoint = Checkpoint.open(model);
        Device device = Device.of("reference", 1);
        Linear layer = checkpoint.linear(LAYER, device)) {
      assertThat(layer.kernel(1)).endsWith("reference");
    }
  }

  @Test
  void isMisusedWithoutThreads() {
    Cli.run("pack", temp.resolve("model.safetensors"), "--threads", "0").isMisused("--threads");
  }
}
