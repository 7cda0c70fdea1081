package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.Layout;
import dev.gatun.layout.PlainLayout;
import dev.gatun.layout.QuantoBitsLayout;
import dev.gatun.layout.QuantoBytesLayout;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Map;

/** The weight of a module as quanto stores it, convolutions included. */
final class QuantoModules {
  private QuantoModules() {}

  private static String type(QuantizedModule module) {
    return module.types().weights().orElseThrow();
  }

  private static LayerWriter writer(QuantizedModule module) {
    return Quantizer.family(type(module)).writer(type(module));
  }

  /** What stands for the weight in the file, without its memory. */
  static List<SafetensorsWriter.Entry> entries(QuantizedModule module) {
    Tensor weight = module.weight().orElseThrow();
    Encoding type = weight.dtype().encoding().orElseThrow();
    PlainLayout layout = new PlainLayout(type);
    long n = weight.shape().get(0);
    QuantizedTensor plain =
        new QuantizedTensor(
            module.name(),
            weight.shape(),
            layout,
            Map.of(),
            layout.matrix(n, weight.elements() / n, weight.data()),
            type);
    try (Arena arena = Arena.ofShared()) {
      List<Tensor> tensors =
          writer(module).blank(module.name(), plain, arena).orElseThrow().tensors();
      return ofWeight(tensors).stream().map(SafetensorsWriter.Entry::of).toList();
    }
  }

  /** What stands for the weight in the file. */
  static List<Tensor> tensors(QuantizedModule module, Backend backend, Arena arena) {
    Tensor weight = module.weight().orElseThrow();
    return ofWeight(writer(module).quantize(module.name(), weight, backend, arena).tensors());
  }

  /** Without the activations' scales. */
  private static List<Tensor> ofWeight(List<Tensor> tensors) {
    return tensors.stream().filter(tensor -> !tensor.name().endsWith("put_scale")).toList();
  }

  /** The quantized weight, in the shape that the module's has. */
  static QuantizedTensor quantize(QuantizedModule module, Backend backend, Arena arena) {
    Tensor weight = module.weight().orElseThrow();
    Matrix matrix = writer(module).quantize(module.name(), weight, backend, arena).matrix();
    Layout layout =
        switch (type(module)) {
          case "qint2", "qint4" ->
              new QuantoBitsLayout(matrix.encoding().bits(), QuantoBitsLayout.groupOf(matrix.k()));
          default -> new QuantoBytesLayout(matrix.encoding(), weight.shape().get(0) != 1);
        };
    return new QuantizedTensor(
        module.name(),
        module.weight().orElseThrow().shape(),
        layout,
        Map.of(),
        matrix,
        weight.dtype().encoding().orElseThrow());
  }
}
