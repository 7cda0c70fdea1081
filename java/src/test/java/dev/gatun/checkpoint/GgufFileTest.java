package dev.gatun.checkpoint;

import static dev.gatun.checkpoint.GgufBytes.start;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import net.jqwik.api.ForAll;
import net.jqwik.api.Property;
import net.jqwik.api.constraints.IntRange;
import net.jqwik.api.constraints.Size;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** The container: what ggml wrote, and everything that can be wrong with a file. */
class GgufFileTest {
  private static final int F32 = 0;
  private static final int Q4_0 = 2;

  @TempDir private Path temp;

  private Path write(String name, byte[] bytes) throws IOException {
    return Files.write(temp.resolve(name), bytes);
  }

  @Test
  void readsWhatTheLibraryWrote() {
    try (GgufFile file = GgufFile.open(Golden.file("gguf", "all", "model.gguf"))) {
      assertThat(file.tensors()).hasSize(63);
      Tensor weight = file.tensors().get("b.q4_K");
      assertThat(weight.shape()).isEqualTo(List.of(24L, 1536L));
      assertThat(weight.dtype()).isEqualTo(DType.Q4_K);
      assertThat(weight.data().byteSize()).isEqualTo(24 * 1536 / 256 * 144);
      assertThat(weight.data().isReadOnly()).isTrue();
      assertThat(file.metadata())
          .containsEntry("general.architecture", "golden")
          .containsEntry("general.name", "golden é✓")
          .containsEntry("golden.u8", "200")
          .containsEntry("golden.i8", "-7")
          .containsEntry("golden.u16", "60000")
          .containsEntry("golden.i16", "-30000")
          .containsEntry("golden.f32", "0.1")
          .containsEntry("golden.u64", Long.toUnsignedString(0xFEDCBA9876543210L));
      assertThat(file.values().get("general.alignment").whole()).hasValue(32);
    }
  }

  @Test
  void reversesTheSizesAndKeepsLongListsInTheFile() throws IOException {
    GgufBytes bytes = start(3, 3, 2).string("tokens").u32(9).u32(8).u64(1000);
    for (int i = 0; i < 1000; i++) {
      bytes.string("token" + i);
    }
    bytes.pair("general.alignment", 64);
    bytes.info("a", F32, 0, 3, 2).info("scalar", F32, 64).info("none", Q4_0, 128, 0, 5);
    Path path = write("a.gguf", bytes.align(64).zeros(64).zeros(4).bytes()); // no last padding
    try (GgufFile file = GgufFile.open(path)) {
      assertThat(file.tensors().get("a").shape()).isEqualTo(List.of(2L, 3L));
      assertThat(file.tensors().get("scalar").shape()).isEmpty();
      assertThat(file.tensors().get("none").data().byteSize()).isZero();
      GgufValue tokens = file.values().get("tokens");
      assertThat(tokens.count()).isEqualTo(1000);
      assertThat(tokens.first(2)).containsExactly("token0", "token1");
      assertThat(tokens.data().isNative()).as("mapped").isTrue();
      assertThat(tokens.text()).startsWith("[token0, ").contains("1000 in all");
    }
  }

  static Stream<Arguments> broken() {
    GgufBytes good = start(3, 1, 0).info("w", Q4_0, 0, 32, 2).align(32).zeros(64);
    return Stream.of(
        Arguments.of("nothing", new byte[0], "no \"GGUF\""),
        Arguments.of(
            "another magic", "GGUX0000".getBytes(StandardCharsets.US_ASCII), "no \"GGUF\""),
        Arguments.of("version 1", start(1, 0, 0).bytes(), "version 1"),
        Arguments.of("version 4", start(4, 0, 0).bytes(), "version 4"),
        Arguments.of("big-endian", start(3 << 24, 0, 0).bytes(), "big-endian"),
        Arguments.of("tensors 2^64-1", start(3, -1, 0).bytes(), "18446744073709551615 tensors"),
        Arguments.of("tensors 2^62", start(3, 1L << 62, 0).bytes(), "4611686018427387904 tensors"),
        Arguments.of("pairs 2^64-1", start(3, 0, -1).bytes(), "18446744073709551615 metadata"),
        Arguments.of("more tensors than bytes", start(3, 2, 0).bytes(), "2 tensors"),
        Arguments.of("more pairs than bytes", start(3, 0, 1).bytes(), "1 metadata pairs"),
        Arguments.of(
            "key longer than the file", start(3, 0, 1).u64(-1).zeros(40).bytes(), "a string of"),
        Arguments.of(
            "key that is not UTF-8",
            start(3, 0, 1).u64(1).raw((byte) 0xFF).zeros(40).bytes(),
            "not UTF-8"),
        Arguments.of("key with NUL", start(3, 0, 1).string("a\0").zeros(40).bytes(), "a NUL"),
        Arguments.of(
            "unknown type of value",
            start(3, 0, 1).string("k").u32(13).zeros(8).bytes(),
            "type 13"),
        Arguments.of(
            "duplicate key", start(3, 0, 2).pair("k", 1).pair("k", 2).bytes(), "'k' twice"),
        Arguments.of(
            "array bomb",
            start(3, 0, 1).string("k").u32(9).u32(0).u64(1L << 62).zeros(8).bytes(),
            "4611686018427387904 elements"),
        Arguments.of(
            "array of 2^64-1 strings",
            start(3, 0, 1).string("k").u32(9).u32(8).u64(-1).zeros(8).bytes(),
            "18446744073709551615 elements"),
        Arguments.of(
            "array of arrays",
            start(3, 0, 1).string("k").u32(9).u32(9).u64(1).zeros(20).bytes(),
            "array of arrays"),
        Arguments.of(
            "string value past the end",
            start(3, 0, 1).string("k").u32(8).u64(100).zeros(20).bytes(),
            "a string of 100 bytes in metadata 'k'"),
        Arguments.of(
            "alignment 0", start(3, 0, 1).pair("general.alignment", 0).bytes(), "alignment 0"),
        Arguments.of(
            "alignment 48", start(3, 0, 1).pair("general.alignment", 48).bytes(), "alignment 48"),
        Arguments.of(
            "alignment of another type",
            start(3, 0, 1).string("general.alignment").u32(10).u64(32).bytes(),
            "of type U64"),
        Arguments.of(
            "name of 64 bytes",
            start(3, 1, 0).info("n".repeat(64), F32, 0, 1).align(32).zeros(32).bytes(),
            "64 bytes for the name of tensor 0"),
        Arguments.of(
            "5 dimensions",
            start(3, 1, 0).info("w", F32, 0, 1, 1, 1, 1, 1).align(32).zeros(32).bytes(),
            "5 dimensions"),
        Arguments.of(
            "negative size",
            start(3, 1, 0).info("w", F32, 0, -1).align(32).zeros(32).bytes(),
            "size 18446744073709551615"),
        Arguments.of(
            "sizes that overflow",
            start(3, 1, 0).info("w", F32, 0, 1L << 40, 1L << 40).align(32).zeros(32).bytes(),
            "fits in 64 bits"),
        Arguments.of(
            "removed type",
            start(3, 1, 0).info("w", 4, 0, 32).align(32).zeros(32).bytes(),
            "type 4"),
        Arguments.of(
            "type 43", start(3, 1, 0).info("w", 43, 0, 32).align(32).zeros(32).bytes(), "type 43"),
        Arguments.of(
            "rows that are not whole blocks",
            start(3, 1, 0).info("w", Q4_0, 0, 33, 32).align(32).zeros(640).bytes(),
            "rows of 33 elements"),
        Arguments.of(
            "offset that is not 0",
            start(3, 1, 0).info("w", F32, 32, 8).align(32).zeros(64).bytes(),
            "offset 32"),
        Arguments.of(
            "hole",
            start(3, 2, 0).info("v", F32, 0, 8).info("w", F32, 64, 8).align(32).zeros(96).bytes(),
            "tensor 'w': found offset 64"),
        Arguments.of(
            "overlap",
            start(3, 2, 0).info("v", F32, 0, 8).info("w", F32, 0, 8).align(32).zeros(96).bytes(),
            "tensor 'w': found offset 0"),
        Arguments.of(
            "data past the end",
            start(3, 1, 0).info("w", Q4_0, 0, 32, 2).align(32).zeros(35).bytes(),
            "35 bytes of data, expected 36"),
        Arguments.of(
            "two tensors of a name",
            start(3, 2, 0).info("w", F32, 0, 8).info("w", F32, 32, 8).align(32).zeros(64).bytes(),
            "two tensors of this name"),
        Arguments.of("cut", java.util.Arrays.copyOf(good.bytes(), 50), "'w'"));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource
  void broken(String what, byte[] bytes, String message) throws IOException {
    Path path = write("bad.gguf", bytes);
    assertThatThrownBy(() -> Checkpoint.open(path).close())
        .isInstanceOf(GatunException.class)
        .hasMessageContaining(path.toString())
        .hasMessageContaining(message)
        .hasMessageContaining("expected")
        .message()
        .hasLineCount(1);
  }

  @Test
  void isToldByItsFirstBytesNotByItsName() throws IOException {
    byte[] bytes = start(2, 1, 0).info("w", Q4_0, 0, 32, 2).align(32).zeros(64).bytes();
    try (Checkpoint checkpoint = Checkpoint.open(write("model.bin", bytes))) {
      assertThat(checkpoint.layers()).containsOnlyKeys("w");
    }
  }

  @Test
  void refusesTypesWithoutTablesByName() throws IOException {
    byte[] bytes = start(3, 1, 0).info("x.weight", 16, 0, 256).align(32).zeros(96).bytes();
    try (Checkpoint checkpoint = Checkpoint.open(write("iq.gguf", bytes))) {
      assertThat(checkpoint.unsupported().get("x")).contains("IQ2_XXS");
      assertThatThrownBy(() -> checkpoint.quantized("x"))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("IQ2_XXS");
    }
  }

  private static byte[] part(String tensor, int number, int count, int tensors) {
    return start(3, 1, 3)
        .string("split.no")
        .u32(2)
        .raw((byte) number, (byte) 0)
        .string("split.count")
        .u32(2)
        .raw((byte) count, (byte) 0)
        .string("split.tensors.count")
        .u32(5)
        .u32(tensors)
        .info(tensor, Q4_0, 0, 32)
        .align(32)
        .zeros(32)
        .bytes();
  }

  @Test
  void opensASplitFileAsOne() throws IOException {
    write("m-00001-of-00002.gguf", part("t0", 0, 2, 2));
    Path second = write("m-00002-of-00002.gguf", part("t1", 1, 2, 2));
    for (Path path : List.of(second, temp)) {
      try (Checkpoint checkpoint = Checkpoint.open(path)) {
        assertThat(checkpoint.layers()).containsOnlyKeys("t0", "t1");
      }
    }
    write("m-00001-of-00002.gguf", part("t0", 1, 2, 2));
    assertThatThrownBy(() -> Checkpoint.open(second).close())
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("m-00001-of-00002.gguf")
        .hasMessageContaining("found split.no 1, expected split.no 0");
    Files.delete(temp.resolve("m-00001-of-00002.gguf"));
    assertThatThrownBy(() -> Checkpoint.open(second).close())
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("m-00001-of-00002.gguf")
        .hasMessageContaining("no such file");
  }

  private static void survives(byte[] bytes) throws IOException {
    Path path = Files.createTempFile("gatun-fuzz-", ".gguf");
    try {
      Files.write(path, bytes);
      try (Checkpoint checkpoint = Checkpoint.open(path)) {
        checkpoint.metadata();
        checkpoint.layers().keySet().forEach(checkpoint::quantized);
      } catch (GatunException expected) {
        // the only exception that there may be
      }
    } finally {
      Files.delete(path);
    }
  }

  @Property(tries = 300)
  void randomBytes(@ForAll @Size(max = 200) byte[] bytes) throws IOException {
    survives(bytes);
  }

  @Property(tries = 500)
  void randomBytesAfterAGoodStart(
      @ForAll @IntRange(max = 3) int tensors,
      @ForAll @IntRange(max = 3) int pairs,
      @ForAll @Size(max = 200) byte[] bytes)
      throws IOException {
    survives(start(3, tensors, pairs).raw(bytes).bytes());
  }

  @Property(tries = 500)
  void mutatedFiles(@ForAll long seed, @ForAll @IntRange(min = 1, max = 6) int count)
      throws IOException {
    byte[] bytes = Files.readAllBytes(Golden.file("gguf", "all", "model.gguf"));
    Random random = new Random(seed);
    for (int i = 0; i < count; i++) {
      byte value = random.nextBoolean() ? (byte) random.nextInt(16) : (byte) random.nextInt();
      bytes[random.nextInt(4500)] = value; // the head
    }
    survives(random.nextInt(8) == 0 ? java.util.Arrays.copyOf(bytes, random.nextInt(9000)) : bytes);
  }
}
