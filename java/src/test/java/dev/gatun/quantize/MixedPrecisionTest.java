package dev.gatun.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.gatun.Compute;
import dev.gatun.ComputePlan;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A layout and a compute type for every layer: quantized, written, loaded and run. */
class MixedPrecisionTest {
  private static final int WIDTH = 96;
  private static final int ROWS = 7;
  private static final Map<String, String> FORMATS =
      new LinkedHashMap<>(
          Map.of("a.up", "nf4", "a.down", "qint8", "b.up", "float8_e4m3fn", "b.down", "qint4"));

  @ParameterizedTest
  @ValueSource(strings = {"reference", "vector", "native"})
  void everyLayerHasItsOwn(String backend, @TempDir Path dir) {
    assumeTrue(
        Device.probe().stream().anyMatch(p -> p.backend().equals(backend) && p.available()),
        "no backend " + backend);
    Path floats = floats(dir.resolve("floats.safetensors"));
    Path mixed = dir.resolve("mixed.safetensors");
    ComputePlan plan = ComputePlan.parse("*.down=i8,b.*=f8,c.up=bf16,f32");
    Map<String, Compute> expected =
        Map.of(
            "a.up", Compute.F32,
            "a.down", Compute.I8,
            "b.up", Compute.F8,
            "b.down", Compute.I8,
            "c.up", Compute.BF16);
    try (Device device = Device.of(backend, 2);
        Checkpoint source = Checkpoint.open(floats)) {
      Quantizer.quantize(
          source,
          mixed,
          QuantizePlan.of(FORMATS).with(plan),
          device.operations(),
          2,
          ProgressListener.NONE);
      float[] x = numbers(ROWS * WIDTH, 9);
      float[] exact = x.clone();
      try (Checkpoint checkpoint = Checkpoint.open(mixed)) {
        assertThat(checkpoint.layers().keySet()).containsAll(FORMATS.keySet());
        for (Map.Entry<String, Compute> layer : expected.entrySet()) {
          float[] y = new float[ROWS * WIDTH];
          float[] plain = new float[ROWS * WIDTH];
          try (Linear linear = checkpoint.linear(layer.getKey(), device); // as the file says
              Linear original = source.linear(layer.getKey(), device)) {
            assertThat(linear.compute()).isEqualTo(layer.getValue());
            linear.forward(MemorySegment.ofArray(x), ROWS, MemorySegment.ofArray(y));
            original.forward(MemorySegment.ofArray(exact), ROWS, MemorySegment.ofArray(plain));
          }
          assertThat(distance(y, plain)).as(layer.getKey()).isBetween(1e-5, 0.15);
        }
      }
    }
  }

  @Test
  void aPlanInTheFileThatIsNoneIsRefused(@TempDir Path dir) {
    Path file = dir.resolve("x.safetensors");
    try (SafetensorsWriter out =
        SafetensorsWriter.create(
            file,
            List.of(new SafetensorsWriter.Entry("a.weight", DType.F32, List.of(1L, 1L))),
            Map.of(Checkpoint.COMPUTE_PLAN, "a=f64"))) {
      out.write("a.weight", MemorySegment.ofArray(new byte[4]));
      out.commit();
    }
    try (Checkpoint checkpoint = Checkpoint.open(file)) {
      assertThatThrownBy(() -> checkpoint.compute("a"))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("x.safetensors: metadata gatun.compute_plan: ");
    }
  }

  @Test
  void plansAreReadAndSaid() {
    ComputePlan plan = ComputePlan.parse("encoder.?.up=I8, *=bf16");
    assertThat(plan.of("encoder.1.up")).isEqualTo(Compute.I8);
    assertThat(plan.of("encoder.12.up")).isEqualTo(Compute.BF16);
    assertThat(plan).hasToString("encoder.?.up=i8,*=bf16,f32");
    assertThat(ComputePlan.parse(plan.toString())).isEqualTo(plan);
    assertThat(ComputePlan.parse("i8_block").of("any")).isEqualTo(Compute.I8_BLOCK);
    assertThatThrownBy(() -> ComputePlan.parse("*=i9"))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("no compute type 'i9', expected one of [f32, bf16, i8, i8_block");
    assertThatThrownBy(() -> ComputePlan.parse("i8,f32"))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("found 'f32' in 'i8,f32', expected glob=compute");
  }

  private static double distance(float[] found, float[] expected) {
    double error = 0;
    double size = 0;
    for (int i = 0; i < found.length; i++) {
      error += ((double) found[i] - expected[i]) * ((double) found[i] - expected[i]);
      size += (double) expected[i] * expected[i];
    }
    return Math.sqrt(error / size);
  }

  private static Path floats(Path file) {
    List<String> names = List.of("a.up", "a.down", "b.up", "b.down", "c.up");
    List<Tensor> tensors =
        IntStream.range(0, names.size())
            .mapToObj(
                i ->
                    new Tensor(
                        names.get(i) + ".weight",
                        DType.F32,
                        List.of((long) WIDTH, (long) WIDTH),
                        MemorySegment.ofArray(numbers(WIDTH * WIDTH, i))))
            .toList();
    try (SafetensorsWriter writer =
        SafetensorsWriter.create(
            file, tensors.stream().map(SafetensorsWriter.Entry::of).toList(), Map.of())) {
      tensors.forEach(tensor -> writer.write(tensor.name(), tensor.data()));
      writer.commit();
    }
    return file;
  }

  private static float[] numbers(int count, int seed) {
    Random random = new Random(seed);
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }
}
