package dev.gatun.bench.onnx;

import static org.assertj.core.api.Assertions.assertThat;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtSession;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class MatMulModelTest {
  private static final float[] W = {1, 2, 3, 4, 5, 6};

  private static Path write(Path directory, int copies) {
    ByteBuffer w = ByteBuffer.allocate(24).order(ByteOrder.LITTLE_ENDIAN);
    w.asFloatBuffer().put(W);
    Path file = directory.resolve("model.onnx");
    new MatMulModel("MatMul", "")
        .constant("w", OnnxModel.FLOAT, List.of(3L, 2L), w.array())
        .write(file, copies, 2, 3);
    return file;
  }

  @Test
  void onnxRuntimeMultipliesByOtherWeightsEachTime(@TempDir Path directory) throws Exception {
    OrtEnvironment environment = OrtEnvironment.getEnvironment();
    try (OrtSession session = environment.createSession(write(directory, 3).toString());
        OnnxTensor x =
            OnnxTensor.createTensor(
                environment, FloatBuffer.wrap(new float[] {1, 0, 1}), new long[] {1, 3});
        OrtSession.Result result = session.run(Map.of("x", x))) {
      assertThat(result.size()).isEqualTo(3);
      float[][] expected = {{6, 8}, {8, 10}, {4, 6}}; // 64 bytes on each time: four floats of six
      for (int i = 0; i < 3; i++) {
        assertThat(((OnnxTensor) result.get(i)).getFloatBuffer().array())
            .containsExactly(expected[i]);
      }
    }
  }

  @Test
  void ourReaderFindsWhatWasWritten(@TempDir Path directory) throws Exception {
    OnnxModel model =
        OnnxModel.read(
            "model.onnx", MemorySegment.ofArray(Files.readAllBytes(write(directory, 2))));
    assertThat(model.initializers()).containsOnlyKeys("w0", "w1");
    assertThat(model.nodes().get(1))
        .isEqualTo(new OnnxModel.Node("product1", "MatMul", List.of("x", "w1"), List.of("y1")));
  }
}
