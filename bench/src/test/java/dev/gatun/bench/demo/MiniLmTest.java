package dev.gatun.bench.demo;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.bench.onnx.OnnxModel;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MiniLmTest {
  private static final ValueLayout.OfFloat FLOAT = ValueLayout.JAVA_FLOAT_UNALIGNED;

  @Test
  void everyWeightHasItsNameAndItsPlace(@TempDir Path directory) throws IOException {
    Path onnx = MiniLm.extractModel(directory);
    Path target = directory.resolve("model.safetensors");
    MiniLm.writeSafetensors(onnx, target);
    try (Checkpoint checkpoint = Checkpoint.open(target);
        FileChannel channel = FileChannel.open(onnx);
        Arena arena = Arena.ofConfined()) {
      long weights = checkpoint.tensors().values().stream().mapToLong(Tensor::elements).sum();
      assertThat(weights)
          .isEqualTo(
              22_713_216 - (384 * 384 + 384)); // all but the pooler, which the ONNX file lacks
      OnnxModel model =
          OnnxModel.read(
              "model", channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena));
      Map<String, String> linears = MiniLm.linears(model);
      assertThat(linears).hasSize(36).containsValue("encoder.layer.5.attention.self.value");
      linears.forEach(
          (name, layer) -> {
            OnnxModel.Initializer source = model.initializers().get(name);
            Tensor weight = checkpoint.tensor(layer + ".weight");
            assertThat(weight.shape()).isEqualTo(source.shape().reversed());
            assertThat(checkpoint.tensor(layer + ".bias").shape())
                .isEqualTo(List.of(weight.shape().getFirst()));
            long out = weight.shape().get(0);
            long in = weight.shape().get(1);
            for (long o = 0; o < out; o += 31) {
              for (long i = 0; i < in; i += 29) {
                assertThat(weight.data().get(FLOAT, 4 * (o * in + i)))
                    .isEqualTo(source.data().get(FLOAT, 4 * (i * out + o)));
              }
            }
          });
    }
  }

  @Test
  void saysWhichTensorIsMissing(@TempDir Path directory) {
    Path file = directory.resolve("model.safetensors");
    var entry =
        new SafetensorsWriter.Entry(
            "embeddings.word_embeddings.weight", DType.F32, List.of(1L, 1L));
    try (SafetensorsWriter writer = SafetensorsWriter.create(file, List.of(entry), Map.of())) {
      writer.write(entry.name(), MemorySegment.ofArray(new byte[4]));
      writer.commit();
    }
    try (Checkpoint checkpoint = Checkpoint.open(file);
        Device device = Device.of("reference", 1)) {
      assertThatThrownBy(() -> new BertEncoder(checkpoint, 1, 1e-12f, Compute.F32, device))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("model.safetensors")
          .hasMessageContaining("embeddings.position_embeddings.weight");
    }
  }
}
