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
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;

/**
 * The weight of a module as quanto stores it, convolutions included: they are quantized as [N,
 * product of the rest], and what is not cut into groups keeps the weight's four dimensions.
 */
final class QuantoModules {
  private QuantoModules() {}

  private static String type(QuantizedModule module) {
    return module.types().weights().orElseThrow();
  }

  private static LayerWriter writer(QuantizedModule module) {
    return Quantizer.family(type(module)).writer(type(module));
  }

  /** The weight seen as a matrix. */
  private static Tensor matrix(QuantizedModule module) {
    Tensor weight = module.weight().orElseThrow();
    long n = weight.shape().get(0);
    return new Tensor(
        weight.name(), weight.dtype(), List.of(n, weight.elements() / n), weight.data());
  }

  /** What stands for the weight in the file, without its memory. */
  static List<SafetensorsWriter.Entry> entries(QuantizedModule module) {
    Tensor weight = matrix(module);
    Encoding type = weight.dtype().encoding().orElseThrow();
    PlainLayout layout = new PlainLayout(type);
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    QuantizedTensor plain =
        new QuantizedTensor(
            module.name(),
            weight.shape(),
            layout,
            Map.of(),
            layout.matrix(n, k, weight.data()),
            type);
    try (Arena arena = Arena.ofShared()) {
      return shaped(
              module, writer(module).blank(module.name(), plain, arena).orElseThrow().tensors())
          .stream()
          .map(SafetensorsWriter.Entry::of)
          .toList();
    }
  }

  /** What stands for the weight in the file. */
  static List<Tensor> tensors(QuantizedModule module, Backend backend, Arena arena) {
    return shaped(
        module, writer(module).quantize(module.name(), matrix(module), backend, arena).tensors());
  }

  /**
   * The parts of the weight, without the activations' scales, in as many dimensions as quanto gives
   * them.
   */
  private static List<Tensor> shaped(QuantizedModule module, List<Tensor> tensors) {
    List<Long> shape = module.weight().orElseThrow().shape();
    boolean flat = shape.size() == 2 || isGrouped(module);
    List<Tensor> result = new ArrayList<>();
    for (Tensor tensor : tensors) {
      if (tensor.name().endsWith("put_scale")) {
        continue;
      }
      List<Long> own = new ArrayList<>(tensor.shape());
      if (!flat && own.size() == 2) {
        boolean perRow = tensor.name().endsWith("_scale") || tensor.name().endsWith("_shift");
        own = new ArrayList<>(perRow ? Collections.nCopies(shape.size(), 1L) : shape);
        own.set(0, tensor.shape().get(0)); // packed codes have fewer rows
      }
      result.add(new Tensor(tensor.name(), tensor.dtype(), own, tensor.data()));
    }
    return result;
  }

  private static boolean isGrouped(QuantizedModule module) {
    boolean bits = type(module).equals("qint2") || type(module).equals("qint4");
    return bits && QuantoBitsLayout.groupOf(matrix(module).shape().get(1)) != 0;
  }

  /** The quantized weight, in the shape that the module's has. */
  static QuantizedTensor quantize(QuantizedModule module, Backend backend, Arena arena) {
    Tensor weight = matrix(module);
    Matrix matrix = writer(module).quantize(module.name(), weight, backend, arena).matrix();
    Layout layout =
        switch (type(module)) {
          case "qint2", "qint4" ->
              new QuantoBitsLayout(
                  matrix.encoding().bits(), QuantoBitsLayout.groupOf(weight.shape().get(1)));
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
