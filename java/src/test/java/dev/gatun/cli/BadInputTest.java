package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assumptions.assumeThat;

import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Files that lie and outputs that cannot be: one line, exit code 1, nothing half-written. */
class BadInputTest {
  private static final String LAYER = "blocks.0.to_q";

  @TempDir Path temp;
  private Path x;

  @BeforeEach
  void writeInput() {
    x = TensorFile.input("to_q", DType.BF16).write(temp.resolve("x.safetensors"));
  }

  /** Every command that reads a checkpoint. */
  private List<Object[]> commands(Path in, Path out) {
    return List.of(
        new Object[] {"inspect", in},
        new Object[] {"dequantize", in, "-o", out},
        new Object[] {"quantize", in, "-o", out, "--format", "nf4"},
        new Object[] {"convert", in, "-o", out, "--format", "qint8"},
        new Object[] {"linear", in, LAYER, "--input", x, "-o", out});
  }

  private static byte[] file(String header, int dataBytes) {
    byte[] json = header.getBytes(StandardCharsets.UTF_8);
    return ByteBuffer.allocate(8 + json.length + dataBytes)
        .order(ByteOrder.LITTLE_ENDIAN)
        .putLong(json.length)
        .put(json)
        .array();
  }

  private static String entry(String name, String dtype, String shape, int begin, int end) {
    return "\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%d,%d]}"
        .formatted(name, dtype, shape, begin, end);
  }

  private static Stream<Arguments> brokenFiles() throws IOException {
    byte[] whole = Files.readAllBytes(Golden.file("bnb", "nf4_bf16", "model.safetensors"));
    byte[] headerBeyond = whole.clone();
    ByteBuffer.wrap(headerBeyond).order(ByteOrder.LITTLE_ENDIAN).putLong(0, whole.length);
    byte[] headerHuge = whole.clone();
    ByteBuffer.wrap(headerHuge).order(ByteOrder.LITTLE_ENDIAN).putLong(0, -1);
    String first = entry("a", "F32", "[2]", 0, 8);
    return Stream.of(
        Arguments.of("nothing", new byte[0], List.of("0 bytes")),
        Arguments.of(
            "truncated",
            Arrays.copyOf(whole, whole.length - 1),
            List.of("tensor '", "data_offsets end")),
        Arguments.of(
            "truncated header", Arrays.copyOf(whole, 100), List.of("header of", "at most the 92")),
        Arguments.of(
            "header beyond", headerBeyond, List.of("header of " + whole.length, "at most")),
        Arguments.of("header huge", headerHuge, List.of("18446744073709551615")),
        Arguments.of("no JSON", file("{\"a\"", 0), List.of("header: found")),
        Arguments.of(
            "overlap",
            file("{" + first + "," + entry("b", "F32", "[2]", 4, 12) + "}", 12),
            List.of("tensor 'b'", "begin 4", "expected 8")),
        Arguments.of(
            "hole",
            file("{" + first + "," + entry("b", "F32", "[2]", 9, 17) + "}", 17),
            List.of("tensor 'b'", "begin 9", "expected 8")),
        Arguments.of(
            "unknown dtype",
            file("{" + entry("a", "F12", "[2]", 0, 3) + "}", 3),
            List.of("tensor 'a'", "'F12'", "F32")),
        Arguments.of(
            "wrong shape",
            file("{" + entry("a", "F32", "[3]", 0, 8) + "}", 8),
            List.of("tensor 'a'", "found 8 bytes", "expected 12 for F32 [3]")),
        Arguments.of(
            "shape that overflows",
            file("{" + entry("a", "F32", "[4294967296,4294967296]", 0, 8) + "}", 8),
            List.of("tensor 'a'", "4294967296")),
        Arguments.of(
            "more than tensors", file("{" + first + "}", 9), List.of("9 bytes of data", "8")));
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("brokenFiles")
  void everyCommandNamesWhatIsWrongWithTheFile(String what, byte[] bytes, List<String> found)
      throws IOException {
    Path in = Files.write(temp.resolve("in.safetensors"), bytes);
    List<Object> expected = new ArrayList<>(found);
    expected.add(in);
    for (Object[] command : commands(in, temp.resolve("out.safetensors"))) {
      Cli.run(command).fails(expected.toArray());
    }
    assertThat(Cli.names(temp)).containsExactly("in.safetensors", "x.safetensors");
    Path badX = Files.copy(in, temp.resolve("bad-x.safetensors"));
    Cli.run(
            "linear",
            Golden.dir("bnb", "nf4_bf16"),
            LAYER,
            "--input",
            badX,
            "-o",
            temp.resolve("y"))
        .fails(badX, found.getFirst());
    assertThat(temp.resolve("y")).doesNotExist();
  }

  @Test
  void everyCommandNamesTheScaleThatIsMissing() {
    TensorFile file = TensorFile.golden("quanto", "qint8_bf16");
    file.tensors.remove(LAYER + ".weight._scale");
    Path in = file.write(temp.resolve("in.safetensors"));
    for (Object[] command : commands(in, temp.resolve("out.safetensors"))) {
      Cli.run(command).fails(in, LAYER + ".weight._scale", "found no such tensor", "expected");
    }
    assertThat(Cli.names(temp)).containsExactly("in.safetensors", "x.safetensors");
  }

  @Test
  void whatUsesAWeightNamesTheScaleThatIsNoNumber() {
    TensorFile file = TensorFile.golden("bnb", "nf4_bf16");
    String name = LAYER + ".weight.absmax";
    float[] scales = file.floats(name);
    scales[5] = Float.NaN;
    file.putFloats(name, List.of((long) scales.length), scales);
    Path in = file.write(temp.resolve("in.safetensors"));
    Path out = temp.resolve("out.safetensors");
    for (Object[] command :
        List.of(
            new Object[] {"dequantize", in, "-o", out},
            new Object[] {"convert", in, "-o", out, "--format", "qint8"},
            new Object[] {"linear", in, LAYER, "--input", x, "-o", out})) {
      Cli.run(command).fails(in, name, "found NaN at index 5", "expected finite numbers");
    }
    assertThat(Cli.names(temp)).containsExactly("in.safetensors", "x.safetensors");
  }

  /** The commands that write, each with an input that is good. */
  private List<Object[]> writers(Path out) {
    Path plain = TensorFile.original(DType.F32).write(temp.resolve("plain.safetensors"));
    Path nf4 = Golden.dir("bnb", "nf4_bf16");
    return List.of(
        new Object[] {"dequantize", nf4, "-o", out},
        new Object[] {"quantize", plain, "-o", out, "--format", "qint8"},
        new Object[] {"convert", nf4, "-o", out, "--format", "qint8"},
        new Object[] {"linear", nf4, LAYER, "--input", x, "-o", out});
  }

  @Test
  void refusesADirectoryAsOutput() throws IOException {
    Path directory = Files.createDirectory(temp.resolve("there"));
    for (Object[] command : writers(directory)) {
      Cli.run(command).fails(directory, "found a directory", "expected the path of a file");
    }
    assertThat(Cli.names(directory)).isEmpty();
  }

  @Test
  void refusesADirectoryThatIsNotThere() {
    Path out = temp.resolve("nowhere/out.safetensors");
    for (Object[] command : writers(out)) {
      Cli.run(command).fails(out, "cannot be written", "no such directory");
    }
    assertThat(temp.resolve("nowhere")).doesNotExist();
  }

  @Test
  void refusesAFileWhereTheDirectoryShouldBe() {
    Path out = x.resolve("out.safetensors");
    for (Object[] command : writers(out)) {
      Cli.run(command).fails(out, "cannot be written", "Not a directory");
    }
  }

  @Test
  @EnabledOnOs(OS.LINUX)
  void refusesADirectoryThatCannotBeWritten() {
    Path out = Path.of("/proc/out.safetensors"); // also root cannot create files there
    for (Object[] command : writers(out)) {
      Cli.run(command).fails(out, "cannot be written");
    }
  }

  @Test
  void refusesTheInputAsOutput() throws IOException {
    Path plain = TensorFile.original(DType.F32).write(temp.resolve("plain.safetensors"));
    Path link = Files.createSymbolicLink(temp.resolve("link.safetensors"), plain);
    Path quantized = temp.resolve("q.safetensors");
    Cli.run("quantize", plain, "-o", quantized, "--format", "nf4").succeeds();
    byte[] before = Files.readAllBytes(plain);
    byte[] quantizedBefore = Files.readAllBytes(quantized);
    String[] expected = {"found the input as output", "expected another file"};
    Cli.run("quantize", plain, "-o", plain, "--format", "nf4")
        .fails(plain, expected[0], expected[1]);
    Cli.run("quantize", plain, "-o", link, "--format", "nf4").fails(link, expected[0], expected[1]);
    Cli.run("dequantize", quantized, "-o", quantized).fails(quantized, expected[0], expected[1]);
    Cli.run("convert", quantized, "-o", quantized, "--format", "fp4").fails(quantized, expected[0]);
    Cli.run("linear", quantized, LAYER, "--input", x, "-o", x).fails(x, expected[0]);
    Cli.run("linear", quantized, LAYER, "--input", x, "-o", quantized)
        .fails(quantized, expected[0]);
    assertThat(plain).hasBinaryContent(before);
    assertThat(quantized).hasBinaryContent(quantizedBefore);
  }

  /**
   * A disk that is too small is refused before quantizing begins, and fails the other commands in
   * the middle of their work: what was there stays, and nothing is added.
   */
  @Test
  @EnabledOnOs(OS.LINUX)
  void keepsTheOldFileWhenTheDiskIsFull() throws Exception {
    Path disk = Files.createDirectory(temp.resolve("disk"));
    Process mount =
        new ProcessBuilder("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk.toString())
            .redirectErrorStream(true)
            .start();
    mount.getInputStream().readAllBytes();
    assumeThat(mount.waitFor()).as("mounting needs root").isZero();
    try {
      Path out = Files.writeString(disk.resolve("out.safetensors"), "old");
      TensorFile wide = new TensorFile();
      Tensor weight = TensorFile.original(DType.F32).tensors.get("blocks.0.proj.weight");
      wide.putAs("a.weight", weight, DType.F32);
      wide.putFloats("x", List.of(200L, 1536L), new float[200 * 1536]);
      Path in = wide.write(temp.resolve("wide.safetensors"));
      Cli.run("quantize", in, "-o", out, "--format", "qint8")
          .fails(out, "bytes free", "expected at least");
      assertThat(Cli.names(disk)).containsExactly("out.safetensors");
      assertThat(out).hasContent("old");
      for (Object[] command :
          List.of(
              new Object[] {
                "convert", Golden.dir("bnb", "nf4_bf16"), "-o", out, "--format", "qint8"
              },
              new Object[] {"dequantize", Golden.dir("bnb", "nf4_bf16"), "-o", out},
              new Object[] {"linear", in, "a", "--input", in, "-o", out})) {
        Cli.run(command).fails(out, "cannot be written", "No space left");
        assertThat(Cli.names(disk)).containsExactly("out.safetensors");
        assertThat(out).hasContent("old");
      }
    } finally {
      new ProcessBuilder("umount", disk.toString()).start().waitFor();
    }
  }

  @Test
  void showsTheStackTraceOnlyWhenAsked() {
    Path gone = temp.resolve("gone");
    Cli.run("inspect", gone).fails(gone);
    Cli.Result verbose = Cli.run("inspect", gone, "--verbose");
    assertThat(verbose.code()).isEqualTo(1);
    assertThat(verbose.err()).startsWith("gatun: " + gone).contains("\tat dev.gatun.");
  }

  @Test
  void failsWhenStandardOutputCannotBeWritten() {
    var full =
        new java.io.PrintWriter(
            new java.io.Writer() {
              @Override
              public void write(char[] text, int from, int count) throws IOException {
                throw new IOException("No space left on device");
              }

              @Override
              public void flush() {}

              @Override
              public void close() {}
            });
    var err = new java.io.StringWriter();
    assertThat(Gatun.run(full, new java.io.PrintWriter(err), "layouts", "--json")).isEqualTo(1);
    assertThat(err.toString()).contains("standard output: cannot be written");
  }
}
