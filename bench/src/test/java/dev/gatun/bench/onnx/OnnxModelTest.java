package dev.gatun.bench.onnx;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.GatunException;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class OnnxModelTest {
  private static ProtoWriter tensor(int type, byte[] data, long... shape) {
    ProtoWriter tensor = new ProtoWriter();
    for (long size : shape) {
      tensor.integer(1, size);
    }
    return tensor.integer(2, type).string(8, "w").bytes(9, data);
  }

  private static byte[] model(ProtoWriter... tensors) {
    ProtoWriter node =
        new ProtoWriter()
            .string(1, "x")
            .string(1, "w")
            .string(2, "y")
            .string(3, "/layer/MatMul")
            .string(4, "MatMul");
    ProtoWriter graph = new ProtoWriter().message(1, node).string(2, "a graph");
    for (ProtoWriter tensor : tensors) {
      graph.message(5, tensor);
    }
    return new ProtoWriter().integer(1, 8).real(99, 1.5f).message(7, graph).toByteArray();
  }

  private static OnnxModel read(byte[] bytes) {
    return OnnxModel.read("test.onnx", MemorySegment.ofArray(bytes));
  }

  @Test
  void findsWeightsAndNodes() {
    OnnxModel model = read(model(tensor(OnnxModel.FLOAT, new byte[24], 2, 3)));
    assertThat(model.initializers().get("w").shape()).isEqualTo(List.of(2L, 3L));
    assertThat(model.initializers().get("w").data().toArray(ValueLayout.JAVA_BYTE)).hasSize(24);
    assertThat(model.nodes())
        .containsExactly(
            new OnnxModel.Node("/layer/MatMul", "MatMul", List.of("x", "w"), List.of("y")));
  }

  @Test
  void readsShapesThatArePacked() {
    ProtoWriter tensor =
        new ProtoWriter().bytes(1, new byte[] {(byte) 0x80, 1, 2}).integer(2, 7).string(8, "w");
    assertThat(read(model(tensor)).initializers().get("w").shape()).isEqualTo(List.of(128L, 2L));
  }

  @ParameterizedTest
  @ValueSource(longs = {4, -1, Long.MAX_VALUE})
  void refusesShapesThatDoNotFitTheBytes(long size) {
    byte[] bytes = model(tensor(OnnxModel.FLOAT, new byte[24], 2, size));
    assertThatThrownBy(() -> read(bytes))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("test.onnx")
        .hasMessageContaining("'w'");
  }

  @Test
  void refusesTwoWeightsOfOneName() {
    byte[] bytes =
        model(tensor(OnnxModel.FLOAT, new byte[4], 1), tensor(OnnxModel.FLOAT, new byte[4], 1));
    assertThatThrownBy(() -> read(bytes))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("two initializers");
  }

  @Test
  void refusesWhatIsNoModel() {
    assertThatThrownBy(() -> read(new byte[0]))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("no graph");
  }

  @Test
  void endsInAnExceptionOfOursWhateverIsCutOrChanged() {
    byte[] whole = model(tensor(OnnxModel.FLOAT, new byte[24], 2, 3));
    Random random = new Random(1);
    for (int i = 0; i < 20_000; i++) {
      byte[] bytes = java.util.Arrays.copyOf(whole, random.nextInt(whole.length + 1));
      for (int changes = random.nextInt(3); changes > 0 && bytes.length > 0; changes--) {
        bytes[random.nextInt(bytes.length)] = (byte) random.nextInt(256);
      }
      try {
        read(bytes);
      } catch (GatunException | ArithmeticException e) {
        assertThat(e).isInstanceOf(GatunException.class);
      }
    }
  }
}
