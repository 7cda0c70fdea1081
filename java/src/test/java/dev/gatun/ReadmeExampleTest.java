package dev.gatun;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.Golden;
import java.io.StringWriter;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import javax.tools.JavaCompiler;
import javax.tools.StandardJavaFileManager;
import javax.tools.ToolProvider;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The README's Java example, compiled as it stands there and run on a checkpoint. */
class ReadmeExampleTest {
  private static final String LAYER = "blocks.0.to_q";
  private static final int LONGEST = 20;

  /** Sums of some hundred products of about 1, in another order. */
  private static final float TOLERANCE = 1e-4f;

  @TempDir Path temp;

  @Test
  void compilesAndRuns() throws Exception {
    String code = ReadmeSection.code("java");
    assertThat(code.lines().count()).as("lines of the example").isLessThanOrEqualTo(LONGEST);
    compile(Files.writeString(temp.resolve("Example.java"), code));
    Path checkpoint = Golden.file("bnb", "nf4_bf16", "model.safetensors");
    String printed = run(checkpoint.toString(), LAYER);
    String[] words = printed.strip().split(" ", -1);
    assertThat(words[0]).as(printed).startsWith("linear_f32_nf4__");
    float value = Float.parseFloat(words[words.length - 1]);
    assertThat(value).isCloseTo(firstOfOnes(checkpoint), within(TOLERANCE));
  }

  private void compile(Path source) throws Exception {
    JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
    StringWriter said = new StringWriter();
    List<String> options =
        List.of(
            "-Xlint:all",
            "-Werror",
            "-cp",
            System.getProperty("java.class.path"),
            "-d",
            temp.toString());
    try (StandardJavaFileManager files = compiler.getStandardFileManager(null, null, null)) {
      boolean compiled =
          compiler
              .getTask(said, files, null, options, null, files.getJavaFileObjects(source))
              .call();
      assertThat(compiled).as(said.toString()).isTrue();
    }
  }

  /** What the program prints, run in a JVM of its own as the README says. */
  private String run(String... arguments) throws Exception {
    List<String> command = new ArrayList<>();
    command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
    command.add("--enable-native-access=ALL-UNNAMED");
    command.add("--add-modules=jdk.incubator.vector");
    command.add("-Dgatun.library.path=" + System.getProperty("gatun.library.path", ""));
    command.addAll(List.of("-cp", temp + ":" + System.getProperty("java.class.path"), "Example"));
    command.addAll(List.of(arguments));
    Path errors = temp.resolve("errors.txt");
    Process process = new ProcessBuilder(command).redirectError(errors.toFile()).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as(Files.readString(errors)).isZero();
    return output;
  }

  /** What the definition gives. */
  private static float firstOfOnes(Path path) {
    try (Checkpoint checkpoint = Checkpoint.open(path);
        Device device = Device.of("reference", 1);
        Linear layer = checkpoint.linear(LAYER, device)) {
      float[] x = new float[Math.toIntExact(layer.inFeatures())];
      float[] y = new float[Math.toIntExact(layer.outFeatures())];
      Arrays.fill(x, 1);
      layer.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(y));
      return y[0];
    }
  }
}
