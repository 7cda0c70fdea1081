package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.BitsAndBytes4BitLayout;
import dev.gatun.layout.BitsAndBytesInt8Layout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/**
 * bitsandbytes' weights as transformers and diffusers save them: NF4 and FP4 with a JSON {@code
 * quant_state} tensor, nested scales or not, and LLM.int8() weights with their row maxima {@code
 * X.SCB}. Source: bitsandbytes/functional.py (QuantState), nn/modules.py.
 */
public final class BitsAndBytes implements CheckpointFormat {
  private static final String SCB = ".SCB";
  static final String STATE = ".quant_state.bitsandbytes__";
  private static final Set<Long> BLOCKS = Set.of(32L, 64L, 128L, 256L, 512L, 1024L, 2048L, 4096L);
  private static final Set<String> PARTS =
      Set.of("absmax", "quant_map", "nested_absmax", "nested_quant_map");
  private static final float TABLE_TOLERANCE = 1e-6f;
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** For {@link java.util.ServiceLoader}. */
  public BitsAndBytes() {}

  @Override
  public String name() {
    return "bitsandbytes";
  }

  @Override
  public Found read(CheckpointSource source) {
    Reader reader = new Reader(new Parts(source));
    Map<String, Map<String, Tensor>> children = reader.childrenOfStates();
    List<QuantizedTensor> layers = new ArrayList<>();
    children.forEach((weight, parts) -> layers.add(reader.fourBit(weight, parts)));
    Map<String, String> side = new LinkedHashMap<>();
    for (Tensor tensor : source.tensors().values()) {
      if (tensor.name().endsWith(SCB)) {
        reader.eightBit(tensor, layers, side);
      }
    }
    return new Found(layers, side, Map.of());
  }

  @Override
  public Map<String, String> writes() {
    Map<String, String> formats = new TreeMap<>(BitsAndBytesWriter.FORMATS);
    formats.putAll(LlmInt8Writer.FORMATS);
    return formats;
  }

  @Override
  public boolean canWrite(String format) {
    return writes().containsKey(format) || BitsAndBytesWriter.writes(format);
  }

  @Override
  public LayerWriter writer(String format) {
    if (!canWrite(format)) {
      throw new GatunException(
          "no format '" + format + "' in bitsandbytes, expected one of " + writes().keySet());
    }
    return LlmInt8Writer.FORMATS.containsKey(format)
        ? new LlmInt8Writer()
        : new BitsAndBytesWriter(format);
  }

  private record Reader(Parts parts) {
    /** By weight: the tensors named {@code <weight>.…} of every weight that has a quant_state. */
    Map<String, Map<String, Tensor>> childrenOfStates() {
      Map<String, Map<String, Tensor>> children = new LinkedHashMap<>();
      for (String name : parts.source().tensors().keySet()) {
        int end = name.indexOf(STATE);
        if (end > 0) {
          children.put(name.substring(0, end), new LinkedHashMap<>());
        }
      }
      for (Tensor tensor : parts.source().tensors().values()) {
        String name = tensor.name();
        int state = name.indexOf(STATE);
        int end = state >= 0 ? state : name.lastIndexOf('.');
        Map<String, Tensor> siblings = end < 0 ? null : children.get(name.substring(0, end));
        if (siblings != null) {
          siblings.put(name.substring(end + 1), tensor);
        }
      }
      return children;
    }

    QuantizedTensor fourBit(String weightName, Map<String, Tensor> children) {
      Tensor state = onlyState(weightName, children);
      String type = state.name().substring(state.name().indexOf(STATE) + STATE.length());
      Tensor weight =
          parts.require(weightName, "the codes that " + Problem.quote(state.name()) + " describes");
      JsonNode json = parts.json(state);
      if (!json.isObject()) {
        throw parts.problem(state, "JSON that is no object", "an object");
      }
      Encoding encoding = encoding(state, type, json);
      long block = block(state, json, "blocksize");
      Encoding dtype = dtype(state, json);
      List<Long> shape = shape(state, json);
      long elements = elements(state, shape);
      long blocks = Math.ceilDiv(elements, block);
      MemorySegment codes = codes(weight, elements);

      Tensor absmax = parts.require(weightName + ".absmax", "the scales of a " + type + " weight");
      Tensor map =
          parts.require(weightName + ".quant_map", "the codebook of a " + type + " weight");
      boolean nested =
          json.has("nested_blocksize") || json.has("nested_offset") || json.has("nested_dtype");
      BitsAndBytes4BitLayout layout = new BitsAndBytes4BitLayout(encoding, block, nested);
      checkMap(map, type, layout.codebook());
      parts.dtype(absmax, nested ? DType.U8 : DType.F32);
      parts.shape(absmax, blocks);

      Map<String, Tensor> roles = new LinkedHashMap<>();
      roles.put("codes", weight);
      roles.put("scales", absmax);
      roles.put("codebook", map);
      roles.put("quant_state", state);
      Optional<Matrix.Nested> nest = Optional.empty();
      if (nested) {
        nest = Optional.of(nested(weightName, state, json, blocks, roles));
      } else if (children.containsKey("nested_absmax")
          || children.containsKey("nested_quant_map")) {
        throw parts.problem(
            state, "no nested_blocksize beside nested tensors", "nested_blocksize, nested_offset");
      }
      Parts.Size size = Parts.Size.of(shape);
      Matrix matrix = layout.matrix(size.n(), size.k(), codes, absmax.data(), nest, dtype);
      return new QuantizedTensor(Parts.layerOf(weightName), shape, layout, roles, matrix, dtype);
    }

    /** An LLM.int8() weight, by its row maxima. */
    void eightBit(Tensor maxima, List<QuantizedTensor> layers, Map<String, String> side) {
      String layer = maxima.name().substring(0, maxima.name().length() - SCB.length());
      Tensor weight =
          parts.require(
              layer + Parts.WEIGHT, "the weight that " + Problem.quote(maxima.name()) + " scales");
      parts.dtype(weight, DType.I8);
      if (weight.shape().size() < 2) {
        throw parts.problem(weight, "shape " + weight.shape(), "[N, K]");
      }
      Parts.Size size = Parts.Size.of(weight.shape());
      parts.dtype(maxima, DType.F32);
      parts.count(maxima, size.n());
      parts
          .find(layer + ".weight_format")
          .ifPresent(
              format -> {
                rowMajor(format);
                side.put(format.name(), "layout mark of an LLM.int8() weight: row-major");
              });
      BitsAndBytesInt8Layout layout = new BitsAndBytesInt8Layout();
      Map<String, Tensor> roles = new LinkedHashMap<>();
      roles.put("codes", weight);
      roles.put("scales", maxima);
      Matrix matrix = layout.matrix(size.n(), size.k(), weight.data(), maxima.data());
      layers.add(new QuantizedTensor(layer, weight.shape(), layout, roles, matrix, Encoding.F32));
    }

    /** The other layouts are those of GPUs that the library no longer writes for. */
    private void rowMajor(Tensor format) {
      parts.dtype(format, DType.U8);
      parts.count(format, 1);
      int code = format.data().get(ValueLayout.JAVA_BYTE, 0);
      if (code != 0) {
        String name =
            switch (code) {
              case 1 -> " (col32)";
              case 2 -> " (col_turing)";
              case 3 -> " (col_ampere)";
              default -> "";
            };
        throw parts.problem(format, "weight format " + (code & 0xFF) + name, "0 (row)");
      }
    }

    private Tensor onlyState(String weightName, Map<String, Tensor> children) {
      Tensor state = null;
      for (Map.Entry<String, Tensor> child : children.entrySet()) {
        if (child.getKey().startsWith("quant_state")) {
          if (state != null) {
            throw parts.problem(
                child.getValue(), "a second quant_state", "one for " + Problem.quote(weightName));
          }
          state = child.getValue();
        } else if (!PARTS.contains(child.getKey())) {
          throw parts.problem(
              child.getValue(), "a tensor that is no part of a quantized weight", PARTS.toString());
        }
      }
      if (state == null) {
        throw Problem.tensor(parts.source().path(), weightName, "no quant_state", "one");
      }
      return state;
    }

    private Encoding encoding(Tensor state, String type, JsonNode json) {
      Encoding encoding =
          switch (type) {
            case "nf4" -> Encoding.NF4;
            case "fp4" -> Encoding.FP4;
            default ->
                throw parts.problem(state, "quant type " + Problem.quote(type), "nf4 or fp4");
          };
      if (!json.path("quant_type").asText("").equals(type)) {
        throw parts.problem(
            state, "quant_type " + Problem.quote(json.path("quant_type").toString()), type);
      }
      return encoding;
    }

    private long block(Tensor state, JsonNode json, String key) {
      JsonNode value = json.path(key);
      if (!value.isIntegralNumber()
          || !value.canConvertToLong()
          || !BLOCKS.contains(value.asLong())) {
        throw parts.problem(
            state, key + " " + Problem.quote(value.toString()), "one of 32, 64 … 4096");
      }
      return value.asLong();
    }

    private Encoding dtype(Tensor state, JsonNode json) {
      String text = json.path("dtype").asText("");
      return switch (text) {
        case "float32" -> Encoding.F32;
        case "float16" -> Encoding.F16;
        case "bfloat16" -> Encoding.BF16;
        default ->
            throw parts.problem(
                state,
                "dtype " + Problem.quote(json.path("dtype").toString()),
                "float32, float16 or bfloat16");
      };
    }

    private List<Long> shape(Tensor state, JsonNode json) {
      JsonNode value = json.path("shape");
      List<Long> shape = new ArrayList<>();
      boolean good = value.isArray() && value.size() >= 1 && value.size() <= 8;
      for (JsonNode size : value) {
        good &= size.isIntegralNumber() && size.canConvertToLong() && size.asLong() > 0;
        shape.add(size.asLong());
      }
      if (!good) {
        throw parts.problem(state, "shape " + Problem.quote(value.toString()), "[N, K]");
      }
      return List.copyOf(shape);
    }

    private long elements(Tensor state, List<Long> shape) {
      try {
        return shape.stream().reduce(1L, Math::multiplyExact);
      } catch (ArithmeticException e) {
        throw parts.problem(state, "shape " + shape, "a size that fits in 64 bits");
      }
    }

    /**
     * The code bytes, whatever type the tensor is stored as: its bytes are the codes in their
     * order.
     */
    private MemorySegment codes(Tensor weight, long elements) {
      parts.dtype(weight, DType.U8, DType.I8, DType.BF16, DType.F16, DType.F32, DType.F64);
      long bytes = Math.ceilDiv(elements, 2L);
      long item = weight.dtype().bits() / 8;
      long stored = Math.ceilDiv(bytes, item);
      boolean column =
          weight.shape().size() <= 2 && weight.shape().stream().filter(s -> s != 1).count() <= 1;
      if (!column || weight.elements() != stored) {
        throw parts.problem(
            weight,
            weight.dtype() + " " + weight.shape(),
            "[" + stored + ", 1] for the " + elements + " codes of the declared shape");
      }
      return weight.data().asSlice(0, bytes);
    }

    private void checkMap(Tensor map, String type, List<Float> table) {
      parts.dtype(map, DType.F32);
      parts.shape(map, 16L);
      for (int i = 0; i < table.size(); i++) {
        float found = map.data().get(FLOAT, 4L * i);
        if (!(Math.abs(found - table.get(i)) <= TABLE_TOLERANCE)) {
          throw parts.problem(
              map, found + " at index " + i, table.get(i) + " as in the table of " + type);
        }
      }
    }

    private Matrix.Nested nested(
        String weightName, Tensor state, JsonNode json, long blocks, Map<String, Tensor> roles) {
      Tensor scales = parts.require(weightName + ".nested_absmax", "the scales of the scales");
      Tensor codebook =
          parts.require(weightName + ".nested_quant_map", "the codebook of the scales");
      long block = block(state, json, "nested_blocksize");
      parts.dtype(scales, DType.F32);
      parts.shape(scales, Math.ceilDiv(blocks, block));
      parts.dtype(codebook, DType.F32);
      parts.shape(codebook, 256L);
      for (int i = 0; i < 256; i++) {
        float value = codebook.data().get(FLOAT, 4L * i);
        if (!Float.isFinite(value)) {
          throw parts.problem(codebook, value + " at index " + i, "finite numbers");
        }
      }
      if (!json.path("nested_dtype").asText("").equals("float32")) {
        throw parts.problem(
            state,
            "nested_dtype " + Problem.quote(json.path("nested_dtype").toString()),
            "float32");
      }
      JsonNode offset = json.path("nested_offset");
      if (!offset.isNumber() || !Float.isFinite((float) offset.asDouble())) {
        throw parts.problem(
            state, "nested_offset " + Problem.quote(offset.toString()), "a finite number");
      }
      roles.put("nested_scales", scales);
      roles.put("nested_codebook", codebook);
      return new Matrix.Nested(codebook.data(), scales.data(), block, (float) offset.asDouble());
    }
  }
}
