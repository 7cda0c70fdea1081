package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.QuantoBytesLayout;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * optimum-quanto's frozen modules: 8-bit codes in {@code X.weight._data} with {@code
 * X.weight._scale}, known by their keys alone and checked against {@code quantization_map.json} or
 * {@code quanto_qmap.json} when one lies beside the file. Source:
 * optimum/quanto/tensor/weights/qbytes.py, nn/qmodule.py.
 */
public final class Quanto implements CheckpointFormat {
  static final String DATA = ".weight._data";
  static final String SCALE = ".weight._scale";
  static final String MAP = "quantization_map.json";
  private static final List<String> MAPS = List.of(MAP, "quanto_qmap.json");

  /** For {@link java.util.ServiceLoader}. */
  public Quanto() {}

  @Override
  public String name() {
    return "quanto";
  }

  @Override
  public Found read(CheckpointSource source) {
    Reader reader = new Reader(source, new Parts(source));
    boolean present =
        source.tensors().keySet().stream()
            .anyMatch(n -> n.endsWith(DATA) || n.contains(DATA + "."));
    return present ? reader.read() : Found.NOTHING;
  }

  @Override
  public Map<String, String> writes() {
    return QuantoWriter.FORMATS;
  }

  @Override
  public LayerWriter writer(String format) {
    if (!writes().containsKey(format)) {
      throw new GatunException(
          "no format '" + format + "' in quanto, expected one of " + writes().keySet());
    }
    return new QuantoWriter(format);
  }

  private record Reader(CheckpointSource source, Parts parts) {
    Found read() {
      List<QuantizedTensor> layers = new ArrayList<>();
      Map<String, String> side = new LinkedHashMap<>();
      Map<String, String> unsupported = new LinkedHashMap<>();
      Map<String, String> declared = declared(side);
      for (Tensor tensor : source.tensors().values()) {
        String name = tensor.name();
        if (name.endsWith(DATA)) {
          String layer = name.substring(0, name.length() - DATA.length());
          layers.add(layer(layer, tensor, declared.get(layer)));
          activationScales(layer, side);
        } else if (name.endsWith(DATA + "._data")) {
          String layer = name.substring(0, name.length() - DATA.length() - "._data".length());
          String type = declared.getOrDefault(layer, "qint2 or qint4");
          unsupported.put(layer, "quanto type " + type + " is not supported yet");
          for (String part : List.of(DATA + "._data", SCALE, ".weight._shift")) {
            side.put(layer + part, "part of a quanto " + type + " weight, not supported yet");
          }
          activationScales(layer, side);
        }
      }
      return new Found(layers, side, unsupported);
    }

    /** Weight types by module, as the map beside the file says; empty when there is none. */
    private Map<String, String> declared(Map<String, String> side) {
      Map<String, String> types = new LinkedHashMap<>();
      for (String fileName : MAPS) {
        JsonNode map = source.sidecar(fileName);
        if (map.isMissingNode()) {
          continue;
        }
        if (!map.isObject()) {
          throw Problem.file(
              source.path().resolveSibling(fileName), "no JSON object", "one entry a module");
        }
        for (Map.Entry<String, JsonNode> entry : map.properties()) {
          String module = entry.getKey();
          String type = entry.getValue().path("weights").asText("none");
          activationScales(module, side);
          if (type.equals("none")) {
            continue;
          }
          boolean there =
              source.tensors().containsKey(module + DATA)
                  || source.tensors().containsKey(module + DATA + "._data")
                  || source.tensors().containsKey(module + Parts.WEIGHT); // not frozen
          if (!there) {
            throw Problem.tensor(
                source.path(),
                module + DATA,
                "no such tensor",
                "the " + type + " weight that " + fileName + " names");
          }
          types.put(module, type);
        }
        break;
      }
      return types;
    }

    private void activationScales(String module, Map<String, String> side) {
      for (String part : List.of(".input_scale", ".output_scale")) {
        if (source.tensors().containsKey(module + part)) {
          side.put(module + part, "scale of a quanto module's activations");
        }
      }
    }

    private QuantizedTensor layer(String layer, Tensor data, @Nullable String declared) {
      parts.dtype(data, DType.I8, DType.F8_E4M3, DType.F8_E4M3FNUZ, DType.F8_E5M2);
      Parts.Size size = Parts.Size.of(data.shape());
      Tensor scale = parts.require(layer + SCALE, "the scales of a quanto weight");
      parts.dtype(scale, DType.F32, DType.F16, DType.BF16);
      boolean perTensor = scale.elements() == 1 && scale.shape().size() <= 1;
      if (!perTensor) {
        if (data.shape().isEmpty()) {
          throw parts.problem(scale, "shape " + scale.shape(), "a scalar, as the codes are");
        }
        List<Long> expected = new ArrayList<>(Collections.nCopies(data.shape().size(), 1L));
        expected.set(0, size.n());
        parts.shape(scale, expected.toArray(Long[]::new));
      }
      QuantoBytesLayout layout = new QuantoBytesLayout(Parts.encoding(data), !perTensor);
      if (declared != null && !declared.equals(layout.qtype()) && !declared.equals("qfloat8")) {
        throw parts.problem(
            data, data.dtype() + " codes", declared + " as the map beside the file says");
      }
      Matrix matrix = layout.matrix(size.n(), size.k(), data.data(), Parts.values(scale));
      Map<String, Tensor> roles = new LinkedHashMap<>();
      roles.put("codes", data);
      roles.put("scales", scale);
      return new QuantizedTensor(layer, data.shape(), layout, roles, matrix, Parts.encoding(scale));
    }
  }
}
