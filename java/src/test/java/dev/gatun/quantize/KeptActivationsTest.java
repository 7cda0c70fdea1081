package dev.gatun.quantize;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.ReferenceBackend;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Scales of static activations go with a layer that is converted within quanto. */
class KeptActivationsTest {
  private final Backend backend = new ReferenceBackend();

  @ParameterizedTest
  @CsvSource({"qint8, qfloat8_e4m3fn", "qint4, qint8", "qint8, qint8"})
  void convertKeepsThem(String from, String to, @TempDir Path dir) throws Exception {
    Path quantized = Files.createDirectories(dir.resolve("from")).resolve("model.safetensors");
    Path converted = Files.createDirectories(dir.resolve("to")).resolve("model.safetensors");
    Path floats = floats(dir.resolve("floats.safetensors"));
    try (Checkpoint source = Checkpoint.open(floats)) {
      QuantizePlan plan = QuantizePlan.of(from, NameFilter.DEFAULT);
      Quantizer.quantize(source, quantized, plan, backend, 1, ProgressListener.NONE);
    }
    try (Checkpoint source = Checkpoint.open(quantized)) {
      ActivationScales.write(
          source, Map.of("a", new Calibration.Scales(Encoding.I8, 0.25f, 3f)), quantized);
    }
    try (Checkpoint source = Checkpoint.open(quantized)) {
      Quantizer.convert(source, converted, to, backend, ProgressListener.NONE);
    }
    try (Checkpoint found = Checkpoint.open(converted)) {
      QuantizedTensor a = found.quantized("a");
      assertThat(a.activations().orElseThrow().encoding()).isEqualTo(Encoding.I8);
      assertThat(scale(a, QuantizedTensor.INPUT_SCALE)).isEqualTo(0.25f);
      assertThat(scale(a, QuantizedTensor.OUTPUT_SCALE)).isEqualTo(3f);
      QuantizedTensor b = found.quantized("b");
      assertThat(b.activations()).isEmpty();
      assertThat(scale(b, QuantizedTensor.INPUT_SCALE)).isEqualTo(1f);
      assertThat(QuantizationMap.of(found).modules().get("a").activations()).contains("qint8");
      assertThat(QuantizationMap.of(found).modules().get("b").activations()).isEmpty();
    }
  }

  private static float scale(QuantizedTensor weight, String role) {
    return Numbers.get(Encoding.F32, weight.part(role).orElseThrow().data(), 0);
  }

  /** Two layers with biases. */
  private static Path floats(Path path) {
    Random random = new Random(3);
    List<SafetensorsWriter.Entry> entries =
        List.of(
            new SafetensorsWriter.Entry("a.weight", DType.F32, List.of(8L, 32L)),
            new SafetensorsWriter.Entry("b.weight", DType.F32, List.of(8L, 32L)),
            new SafetensorsWriter.Entry("a.bias", DType.F32, List.of(8L)),
            new SafetensorsWriter.Entry("b.bias", DType.F32, List.of(8L)));
    try (SafetensorsWriter out = SafetensorsWriter.create(path, entries, Map.of())) {
      for (SafetensorsWriter.Entry entry : entries) {
        byte[] bytes = new byte[Math.toIntExact(entry.byteSize())];
        for (int i = 0; i < bytes.length / Float.BYTES; i++) {
          Numbers.put(Encoding.F32, MemorySegment.ofArray(bytes), i, (float) random.nextGaussian());
        }
        out.write(entry.name(), MemorySegment.ofArray(bytes));
      }
      out.commit();
    }
    return path;
  }
}
