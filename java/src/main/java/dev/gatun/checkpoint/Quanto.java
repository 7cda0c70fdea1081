package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.MissingNode;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.StaticActivations;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.QuantoBitsLayout;
import dev.gatun.layout.QuantoBytesLayout;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * optimum-quanto's frozen modules: 8-bit codes in {@code X.weight._data} with {@code
 * X.weight._scale}, 2- and 4-bit codes in {@code X.weight._data._data} with {@code X.weight._shift}
 * too. Known by their keys alone and checked against {@code quantization_map.json} or {@code
 * quanto_qmap.json} when one lies beside the file. Source: optimum/quanto/tensor/weights,
 * nn/qmodule.
 */
public final class Quanto implements CheckpointFormat {
  static final String DATA = ".weight._data";
  static final String PACKED = ".weight._data._data";
  static final String SCALE = ".weight._scale";
  static final String SHIFT = ".weight._shift";
  static final String MAP = "quantization_map.json";
  private static final List<String> MAPS = List.of(MAP, "quanto_qmap.json");
  private static final String NONE = "none";

  /** For {@link java.util.ServiceLoader}. */
  public Quanto() {}

  @Override
  public String name() {
    return "quanto";
  }

  @Override
  public Found read(CheckpointSource source) {
    Reader reader = new Reader(source, new Parts(source), Reader.activations(source));
    boolean present =
        source.tensors().keySet().stream().anyMatch(n -> n.endsWith(DATA) || n.endsWith(PACKED));
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

  /** quanto's name of a type of activations. */
  static String typeName(Encoding encoding) {
    return switch (encoding) {
      case I8 -> "qint8";
      case F8_E4M3 -> "qfloat8_e4m3fn";
      case F8_E4M3FNUZ -> "qfloat8_e4m3fnuz";
      case F8_E5M2 -> "qfloat8_e5m2";
      default -> throw new IllegalArgumentException("quanto has no activations of " + encoding);
    };
  }

  /**
   * One pass over one checkpoint.
   *
   * @param activations the map beside the file, the type of all activations, or missing
   */
  private record Reader(CheckpointSource source, Parts parts, JsonNode activations) {
    Found read() {
      List<QuantizedTensor> layers = new ArrayList<>();
      Map<String, String> side = new LinkedHashMap<>();
      Map<String, String> declared = declared(side);
      String configured = configured();
      for (Tensor tensor : source.tensors().values()) {
        String name = tensor.name();
        if (name.endsWith(DATA)) {
          String layer = name.substring(0, name.length() - DATA.length());
          layers.add(bytes(layer, tensor, declared.get(layer)));
        } else if (name.endsWith(PACKED)) {
          String layer = name.substring(0, name.length() - PACKED.length());
          layers.add(bits(layer, tensor, declared.getOrDefault(layer, configured)));
        }
      }
      return new Found(layers, side, Map.of());
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
                  || source.tensors().containsKey(module + PACKED)
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

    /** The type of every weight as diffusers' config.json has it; empty when it says nothing. */
    private String configured() {
      JsonNode config = source.sidecar("config.json").path("quantization_config");
      String type = config.path("weights_dtype").asText("");
      return config.path("quant_method").asText("").equals("quanto") && !type.isEmpty()
          ? "q" + type
          : "";
    }

    /** What the map beside the file, or transformers' config.json, says of activations. */
    private Optional<StaticActivations> activations(String module) {
      if (!activations.isMissingNode() && !activations.isTextual()) {
        return activationType(activations.path(module).path("activations").asText(NONE));
      }
      return activationType("q" + activations.asText(NONE));
    }

    /** The map beside the file; else the type that transformers' config.json gives them all. */
    private static JsonNode activations(CheckpointSource source) {
      for (String fileName : MAPS) {
        JsonNode map = source.sidecar(fileName);
        if (!map.isMissingNode()) {
          return map;
        }
      }
      JsonNode config = source.sidecar("config.json").path("quantization_config");
      JsonNode type = config.path("activations");
      boolean quanto = config.path("quant_method").asText("").equals("quanto");
      return quanto && type.isTextual() ? type : MissingNode.getInstance();
    }

    private static Optional<StaticActivations> activationType(String qtype) {
      Optional<Encoding> encoding =
          switch (qtype) {
            case "qint8" -> Optional.of(Encoding.I8);
            case "qfloat8", "qfloat8_e4m3fn" -> Optional.of(Encoding.F8_E4M3);
            case "qfloat8_e4m3fnuz" -> Optional.of(Encoding.F8_E4M3FNUZ);
            case "qfloat8_e5m2" -> Optional.of(Encoding.F8_E5M2);
            default -> Optional.empty();
          };
      return encoding.map(type -> new StaticActivations(type, false, true));
    }

    /** Activation scales that the module has, as parts of its weight. */
    private void activationParts(String module, Map<String, Tensor> roles) {
      for (String role : List.of(QuantizedTensor.INPUT_SCALE, QuantizedTensor.OUTPUT_SCALE)) {
        parts
            .find(module + "." + role)
            .ifPresent(
                scale -> {
                  parts.scalar(scale);
                  roles.put(role, scale);
                });
      }
    }

    private QuantizedTensor bytes(String layer, Tensor data, @Nullable String declared) {
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
      activationParts(layer, roles);
      return new QuantizedTensor(layer, data.shape(), layout, roles, matrix, Parts.encoding(scale))
          .withActivations(activations(layer));
    }

    /**
     * 2- and 4-bit weights: bytes of [ceil(rows / codes a byte), columns], where a row is one
     * group. Neither the shape nor the group size is stored; N is the length of the bias. A layer
     * without one is given as its rows of groups, to be reshaped by who knows N.
     */
    private QuantizedTensor bits(String layer, Tensor data, String declared) {
      parts.dtype(data, DType.U8);
      if (data.shape().size() < 2 || data.elements() == 0) {
        throw parts.problem(data, "shape " + data.shape(), "[rows, columns]");
      }
      Tensor scale = parts.require(layer + SCALE, "the scales of a quanto weight");
      Tensor shift = parts.require(layer + SHIFT, "the shifts of a quanto weight");
      parts.dtype(scale, DType.F32, DType.F16, DType.BF16);
      long rows = scale.elements();
      parts.dtype(shift, scale.dtype(), DType.I8, DType.U8);
      parts.count(shift, rows);
      long packedRows = data.shape().get(0);
      int bits = bitsOf(data, rows, declared);
      if (packedRows != Math.ceilDiv(rows, 8L / bits)) {
        throw parts.problem(
            data,
            packedRows + " rows of bytes",
            Math.ceilDiv(rows, 8L / bits) + " for " + rows + " rows of qint" + bits);
      }
      long columns = data.elements() / packedRows;
      long n = rowsOf(layer, rows, columns, data);
      long k = rows / n * columns;
      QuantoBitsLayout layout = new QuantoBitsLayout(bits, n == rows ? 0 : columns);
      List<Long> shape = new ArrayList<>(n == rows ? data.shape() : List.of(n, k));
      shape.set(0, n);
      Encoding shiftType = Parts.isFloat(shift) ? Parts.encoding(shift) : Encoding.I8;
      Matrix matrix =
          layout.matrix(
              n, k, data.data(), Parts.values(scale), new Matrix.Values(shiftType, shift.data()));
      Map<String, Tensor> roles = new LinkedHashMap<>();
      roles.put("codes", data);
      roles.put("scales", scale);
      roles.put(shiftType == Encoding.I8 ? "zeros" : "offsets", shift);
      activationParts(layer, roles);
      return new QuantizedTensor(layer, shape, layout, roles, matrix, Parts.encoding(scale))
          .withActivations(activations(layer));
    }

    /** N, when the bias gives it and the library would make these groups of K. */
    private long rowsOf(String layer, long rows, long columns, Tensor data) {
      Optional<Tensor> bias = parts.find(layer + ".bias").filter(b -> b.shape().size() == 1);
      if (bias.isEmpty() || bias.get().elements() == rows) {
        return rows;
      }
      long n = bias.get().elements();
      long k = n > 0 && rows % n == 0 ? rows / n * columns : 0;
      if (k == 0 || QuantoBitsLayout.groupOf(k) != columns) {
        throw parts.problem(
            data,
            rows + " groups of " + columns + " weights beside a bias of " + n,
            "groups of " + n + " rows as quanto makes them");
      }
      return n;
    }

    private int bitsOf(Tensor data, long rows, String declared) {
      long packedRows = data.shape().get(0);
      if (declared.equals("qint2") || declared.equals("qint4")) {
        return declared.equals("qint2") ? 2 : 4;
      }
      if (!declared.isEmpty()) {
        throw parts.problem(
            data, "packed codes of 2 or 4 bits", declared + " as the file beside it says");
      }
      if (rows <= 2) {
        throw parts.problem(
            data, rows + " rows of qint2 or qint4", "a " + MAP + " that says which");
      }
      return packedRows == Math.ceilDiv(rows, 4L) ? 2 : 4;
    }
  }
}
