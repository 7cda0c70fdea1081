package dev.gatun.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.GatunException;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.ReferenceBackend;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.DisabledOnOs;
import org.junit.jupiter.api.condition.OS;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Runs that end in the middle, and the runs after them. */
class ResumeTest {
  private static final int KILLS = 10;

  @TempDir Path temp;

  private Path source(int layers, int rows, int columns) {
    Random random = new Random(5);
    Path path = temp.resolve("floats.safetensors");
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    for (int i = 0; i < layers; i++) {
      entries.add(
          new SafetensorsWriter.Entry(
              "layer.%d.weight".formatted(i), DType.F32, List.of((long) rows, (long) columns)));
    }
    entries.add(new SafetensorsWriter.Entry("layer.0.bias", DType.F32, List.of((long) rows)));
    try (SafetensorsWriter out = SafetensorsWriter.create(path, entries, Map.of("format", "pt"))) {
      for (SafetensorsWriter.Entry entry : entries) {
        float[] values = new float[Math.toIntExact(entry.byteSize() / Float.BYTES)];
        for (int i = 0; i < values.length; i++) {
          values[i] = (float) random.nextGaussian();
        }
        byte[] bytes = new byte[4 * values.length];
        MemorySegment.ofArray(bytes).copyFrom(MemorySegment.ofArray(values));
        out.write(entry.name(), MemorySegment.ofArray(bytes));
      }
      out.commit();
    }
    return path;
  }

  private static List<String> names(Path directory) {
    try (Stream<Path> files = Files.list(directory)) {
      return files.map(file -> file.getFileName().toString()).sorted().toList();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private Path directory(String name) throws IOException {
    return Files.createDirectories(temp.resolve(name)).resolve("model.safetensors");
  }

  /** The command in a JVM of its own. */
  private static Process start(Path source, Path output, String format) throws IOException {
    return start(source, output, format, "unlimited");
  }

  /** One that can write no file beyond so many blocks of 512 bytes. */
  private static Process start(Path source, Path output, String format, String blocks)
      throws IOException {
    List<String> command =
        List.of(
            "sh",
            "-c",
            "ulimit -f " + blocks + " && exec \"$0\" \"$@\"",
            Path.of(System.getProperty("java.home"), "bin", "java").toString(),
            "--enable-native-access=ALL-UNNAMED",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            System.getProperty("java.class.path"),
            "dev.gatun.cli.Gatun",
            "quantize",
            source.toString(),
            "-o",
            output.toString(),
            "--format",
            format,
            "--backend",
            "reference",
            "--threads",
            "2");
    return new ProcessBuilder(command)
        .redirectErrorStream(true)
        .redirectOutput(
            File.createTempFile("gatun", ".log", output.getParent().getParent().toFile()))
        .start();
  }

  @ParameterizedTest
  @ValueSource(strings = {"nf4-nested", "qint8"})
  void aKilledRunIsTakenUpAgain(String format) throws Exception {
    Path source = source(24, 192, 256);
    Path whole = directory("whole");
    long begin = System.nanoTime();
    assertThat(start(source, whole, format).waitFor()).isZero();
    long milliseconds = (System.nanoTime() - begin) / 1_000_000;
    List<String> expected = names(whole.getParent());

    Path resumed = directory("resumed");
    Random random = new Random(7);
    for (int kill = 0; kill < KILLS; kill++) {
      Process process = start(source, resumed, format);
      boolean ended = process.waitFor(1 + random.nextLong(milliseconds), TimeUnit.MILLISECONDS);
      process.destroyForcibly().waitFor(); // SIGKILL
      if (ended) {
        assertThat(names(resumed.getParent())).isEqualTo(expected);
        Files.delete(resumed);
      }
    }
    assertThat(start(source, resumed, format).waitFor()).isZero();
    assertThat(names(resumed.getParent())).isEqualTo(expected);
    for (String name : expected) {
      assertThat(resumed.resolveSibling(name)).hasSameBinaryContentAs(whole.resolveSibling(name));
    }
  }

  /** As on a disk that is full: the first keeps rows that are done, the second whole layers. */
  @ParameterizedTest
  @ValueSource(strings = {"qint8", "nf4-nested"})
  @DisabledOnOs(OS.WINDOWS)
  void aRunThatCannotWriteOnIsTakenUpAgain(String format) throws Exception {
    Path source = source(24, 192, 256);
    Path whole = directory("whole");
    assertThat(start(source, whole, format).waitFor()).isZero();
    Path resumed = directory("resumed");
    long half = Files.size(whole) / 2 / 512;
    Process process = start(source, resumed, format, Long.toString(half));
    assertThat(process.waitFor()).isEqualTo(1);
    assertThat(lastLog())
        .contains(resumed + ": cannot be written (")
        .contains("the same run goes on after that");
    assertThat(names(resumed.getParent()))
        .contains(".model.safetensors.part.json")
        .allMatch(name -> name.startsWith("."));
    assertThat(start(source, resumed, format).waitFor()).isZero();
    assertThat(lastLog()).contains("an earlier run was interrupted: going on after ");
    for (String name : names(whole.getParent())) {
      assertThat(resumed.resolveSibling(name)).hasSameBinaryContentAs(whole.resolveSibling(name));
    }
    assertThat(names(resumed.getParent())).isEqualTo(names(whole.getParent()));
  }

  /** What the command that was started last has said. */
  private String lastLog() throws IOException {
    try (Stream<Path> logs = Files.list(temp)) {
      Path last =
          logs.filter(path -> path.toString().endsWith(".log"))
              .max(Comparator.comparingLong(path -> path.toFile().lastModified()))
              .orElseThrow();
      return Files.readString(last);
    }
  }

  /**
   * Ends a run in this process the hard way after so many layers; its files stay as after a kill.
   */
  private void stopAfter(int layers, Path source, Path output, String format) throws IOException {
    Path kept = Files.createDirectories(temp.resolve("kept"));
    try (Checkpoint checkpoint = Checkpoint.open(source)) {
      assertThatThrownBy(
              () ->
                  Quantizer.quantize(
                      checkpoint,
                      output,
                      QuantizePlan.of(format, NameFilter.DEFAULT),
                      new ReferenceBackend(),
                      1,
                      new ProgressListener() {
                        private int seen;

                        @Override
                        public void layer(LayerReport report) {
                          if (++seen == layers) {
                            copyHidden(output.getParent(), kept);
                            throw new IllegalStateException("stopped");
                          }
                        }
                      }))
          .hasMessage("stopped");
    }
    assertThat(names(output.getParent())).isEmpty(); // an error leaves nothing
    copyHidden(kept, output.getParent());
  }

  private static void copyHidden(Path from, Path to) {
    for (String name : names(from)) {
      try {
        Files.write(to.resolve(name), Files.readAllBytes(from.resolve(name)));
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  }

  private static int layersDone(Path source, Path output, String format) {
    int[] quantized = {0};
    try (Checkpoint checkpoint = Checkpoint.open(source)) {
      Quantizer.quantize(
          checkpoint,
          output,
          QuantizePlan.of(format, NameFilter.DEFAULT),
          new ReferenceBackend(),
          1,
          new ProgressListener() {
            @Override
            public void layer(LayerReport report) {
              quantized[0]++;
            }
          });
    }
    return quantized[0];
  }

  /**
   * The first quantizes rows straight to their places, the second keeps whole layers until then.
   */
  @ParameterizedTest
  @CsvSource({"qint8, .model.safetensors.part", "nf4-nested, .model.safetensors.part.layers"})
  void goesOnAfterTheLastWholeLayer(String format, String file) throws Exception {
    Path source = source(6, 8, 32);
    Path output = directory("out");
    stopAfter(4, source, output, format);
    assertThat(names(output.getParent()))
        .containsExactlyInAnyOrder(file, ".model.safetensors.part.json");
    assertThat(layersDone(source, output, format)).isEqualTo(2);
    assertThat(names(output.getParent()))
        .contains("model.safetensors")
        .noneMatch(name -> name.startsWith("."));
    Path whole = directory("whole");
    assertThat(layersDone(source, whole, format)).isEqualTo(6);
    assertThat(output).hasSameBinaryContentAs(whole);
  }

  @Test
  void aLineThatWasCutCountsAsNotDone() throws Exception {
    Path source = source(6, 8, 32);
    Path output = directory("out");
    stopAfter(4, source, output, "qint8");
    Path journal = output.resolveSibling(".model.safetensors.part.json");
    String text = Files.readString(journal);
    Files.writeString(journal, text.substring(0, text.length() - 9));
    assertThat(layersDone(source, output, "qint8")).isEqualTo(3);
  }

  /** A system that goes down may lose bytes whose line it has kept. */
  @ParameterizedTest
  @CsvSource({"qint8, .model.safetensors.part", "nf4-nested, .model.safetensors.part.layers"})
  void bytesThatAreLostCountAsNotDone(String format, String file) throws Exception {
    Path source = source(6, 8, 32);
    Path output = directory("out");
    stopAfter(4, source, output, format);
    Path data = output.resolveSibling(file);
    byte[] bytes = Files.readAllBytes(data);
    bytes[bytes.length - 1] ^= 1;
    Files.write(data, bytes, StandardOpenOption.TRUNCATE_EXISTING);
    assertThat(layersDone(source, output, format)).isEqualTo(3);
    Path whole = directory("whole");
    layersDone(source, whole, format);
    assertThat(output).hasSameBinaryContentAs(whole);
  }

  @Test
  void anotherJobStartsAnew() throws Exception {
    Path source = source(6, 8, 32);
    Path output = directory("out");
    stopAfter(4, source, output, "qint8");
    assertThat(layersDone(source, output, "nf4")).isEqualTo(6);
    assertThat(names(output.getParent())).containsExactly("model.safetensors");
  }

  @Test
  void theTemporaryFileOfAKilledRunIsDeletedByTheNext() throws Exception {
    Path source = source(2, 8, 32);
    Path output = directory("out");
    Files.writeString(output.resolveSibling(".model.safetensors.abc123.tmp"), "left");
    Files.writeString(output.resolveSibling(".other.safetensors.abc123.tmp"), "not ours");
    layersDone(source, output, "nf4");
    assertThat(names(output.getParent()))
        .containsExactly(".other.safetensors.abc123.tmp", "model.safetensors");
  }

  @Test
  void aSecondRunToTheSameFileIsRefused() throws Exception {
    Path source = source(2, 8, 32);
    Path output = directory("out");
    try (Journal running = Journal.open(output, "job", true)) {
      assertThat(running.found()).isEmpty();
      assertThatThrownBy(() -> layersDone(source, output, "nf4"))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("another run");
    }
  }

  @Test
  void theJournalIsText() throws Exception {
    Path source = source(2, 8, 32);
    Path output = directory("out");
    stopAfter(1, source, output, "qint8");
    List<String> lines =
        Files.readAllLines(
            output.resolveSibling(".model.safetensors.part.json"), StandardCharsets.UTF_8);
    assertThat(lines).hasSize(2);
    assertThat(lines.get(1)).contains("\"layer\":\"layer.0\"");
  }
}
