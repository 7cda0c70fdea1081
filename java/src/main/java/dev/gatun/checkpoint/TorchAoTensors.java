package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.TorchAoLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;

/** torchao's tensor subclasses, put together from their flattened data. */
record TorchAoTensors(Parts parts) {
  /** What is read. */
  static final Set<String> TYPES =
      Set.of(
          "Int8Tensor",
          "Float8Tensor",
          "Int4Tensor",
          "Int4TilePackedTo4dTensor",
          "Int4PlainInt32Tensor",
          "IntxUnpackedToInt8Tensor",
          "MXTensor",
          "NVFP4Tensor");

  private static final Map<String, String> ROLES =
      Map.of(
          "qdata", "codes",
          "scale", "scales",
          "scale_and_zero", "scales",
          "zero_point", "zeros",
          "per_tensor_scale", "global_scale",
          "act_pre_scale", QuantizedTensor.INPUT_MULTIPLIER,
          "act_quant_scale", "input_scale",
          "act_quant_zero_point", "input_zero_point",
          "act_per_tensor_scale", "input_global_scale");

  /** What the keys of a name's data begin with: {@code a.b.weight} has {@code a.b._weight_}. */
  static String prefix(String name) {
    int dot = name.lastIndexOf('.');
    return name.substring(0, dot + 1) + "_" + name.substring(dot + 1) + "_";
  }

  /** One weight while it is put together. */
  private record Draft(
      String layer, String name, String type, JsonNode attributes, Map<String, Tensor> roles) {
    Tensor codes() {
      return roles.get("codes");
    }

    Tensor scales() {
      return roles.get("scales");
    }

    Optional<Tensor> zeros() {
      return Optional.ofNullable(roles.get("zeros"));
    }
  }

  QuantizedTensor read(String layer, String name, String type, JsonNode entry) {
    Map<String, Tensor> roles = new LinkedHashMap<>();
    for (JsonNode piece : entry.path("_tensor_data_names")) {
      String part = piece.asText("");
      Tensor tensor =
          parts.require(prefix(name) + part, "data of the " + type + " that the metadata names");
      roles.put(ROLES.getOrDefault(part, part), tensor);
    }
    for (String part :
        List.of("qdata", type.equals("Int4TilePackedTo4dTensor") ? "scale_and_zero" : "scale")) {
      if (!roles.containsKey(ROLES.get(part))) {
        throw Problem.tensor(
            parts.source().path(), name, "no '" + part + "' in '_tensor_data_names'", "it there");
      }
    }
    Draft draft = new Draft(layer, name, type, entry.path("_data"), roles);
    return switch (type) {
      case "Int4Tensor", "Int4PlainInt32Tensor" -> int4(draft);
      case "Int4TilePackedTo4dTensor" -> tiles(draft);
      case "MXTensor", "NVFP4Tensor" -> microscaled(draft);
      default -> blocks(draft);
    };
  }

  /** Whole-byte codes with a scale for each block of rows × columns. */
  private QuantizedTensor blocks(Draft d) {
    Tensor codes = d.codes();
    if (d.type.equals("Float8Tensor")) {
      parts.dtype(codes, DType.F8_E4M3, DType.F8_E5M2, DType.F8_E4M3FNUZ, DType.F8_E5M2FNUZ);
    } else {
      parts.dtype(codes, DType.I8);
    }
    if (codes.shape().size() < 2) {
      throw parts.problem(codes, "shape " + codes.shape(), "[N, K]");
    }
    Parts.Size size = Parts.Size.of(codes.shape());
    List<Long> block = sizes(d, "block_size");
    if (block.size() != codes.shape().size()) {
      throw parts.problem(codes, "block_size " + block, "one size a dimension of " + codes.shape());
    }
    long rows = block.get(0);
    long columns = block.stream().skip(1).reduce(1L, Math::multiplyExact);
    long count = Math.multiplyExact(Math.ceilDiv(size.n(), rows), Math.ceilDiv(size.k(), columns));
    Matrix.Values scales = parts.floats(d.scales(), count);
    d.zeros()
        .ifPresent(
            t -> {
              parts.dtype(t, DType.I8, DType.F32, DType.BF16, DType.F16);
              parts.count(t, count);
            });
    Encoding dtype = dtype(d, "dtype");
    TorchAoLayout layout = new TorchAoLayout(d.type, Parts.encoding(codes));
    return weight(
        d,
        codes.shape(),
        layout,
        () ->
            layout.blocks(
                size.n(),
                size.k(),
                codes.data(),
                rows,
                columns,
                scales,
                d.zeros().filter(t -> !SmallParts.isZero(t.data())).map(Parts::values),
                dtype),
        dtype);
  }

  /** 4-bit codes, two a byte or eight a word, with scales laid [K/group, N]. */
  private QuantizedTensor int4(Draft d) {
    boolean words = d.type.equals("Int4PlainInt32Tensor");
    Tensor codes = d.codes();
    if (words) {
      parts.dtype(codes, DType.I32, DType.U32);
    } else {
      parts.dtype(codes, DType.U8, DType.I8);
    }
    parts.matrix(codes);
    long n = codes.shape().get(0);
    long k = Math.multiplyExact(codes.shape().get(1), words ? 8L : 2L);
    List<Long> shape = List.of(n, k);
    if (d.attributes.has("shape") && !sizes(d, "shape").equals(shape)) {
      throw parts.problem(codes, "codes of " + shape, "shape " + sizes(d, "shape"));
    }
    long group = sizes(d, "block_size").getLast();
    long groups = Math.ceilDiv(k, group);
    parts.shape(d.scales(), groups, n);
    Matrix.Values scales = parts.floats(d.scales(), groups * n);
    Tensor zeros =
        d.zeros()
            .orElseThrow(
                () ->
                    Problem.tensor(
                        parts.source().path(), d.name, "no 'zero_point'", "it among the data"));
    parts.count(zeros, groups * n);
    if (words) {
      parts.dtype(zeros, DType.I8);
    } else {
      parts.dtype(zeros, DType.F32, DType.F16, DType.BF16);
    }
    Optional<Matrix.Values> values = Optional.of(Parts.values(zeros));
    TorchAoLayout layout = new TorchAoLayout(d.type, words ? Encoding.U4 : Encoding.I4);
    return weight(
        d,
        shape,
        layout,
        () ->
            words
                ? layout.transposed(n, k, codes.data(), group, scales, values, Optional.empty())
                : layout.transposed(n, k, codes.data(), group, scales, Optional.empty(), values),
        scales.type());
  }

  private QuantizedTensor tiles(Draft d) {
    Tensor codes = d.codes();
    parts.dtype(codes, DType.I32, DType.U32);
    List<Long> shape = sizes(d, "shape");
    if (shape.size() != 2) {
      throw parts.problem(codes, "shape " + shape + " in the metadata", "[N, K]");
    }
    long n = shape.get(0);
    long k = shape.get(1);
    List<Long> tiles = codes.shape();
    boolean fits =
        tiles.size() == 4
            && tiles.get(0) >= Math.ceilDiv(n, 8L)
            && tiles.get(1) >= Math.ceilDiv(k, 128L)
            && tiles.get(2) == 32
            && tiles.get(3) == 4;
    if (!fits) {
      throw parts.problem(
          codes, "shape " + tiles + " for " + shape, "[N/8, K/128, 32, 4] of the padded sizes");
    }
    long group = sizes(d, "block_size").getLast();
    parts.dtype(d.scales(), DType.BF16);
    long paddedRows = 8 * tiles.get(0);
    parts.shape(d.scales(), Math.ceilDiv(128 * tiles.get(1), group), paddedRows, 2L);
    TorchAoLayout layout = new TorchAoLayout(d.type, Encoding.U4);
    return weight(
        d,
        shape,
        layout,
        () ->
            layout.tiles(
                n, k, codes.data(), 512 * tiles.get(1), group, d.scales().data(), paddedRows),
        Encoding.BF16);
  }

  private QuantizedTensor microscaled(Draft d) {
    boolean nv = d.type.equals("NVFP4Tensor");
    Tensor codes = d.codes();
    parts.matrix(codes);
    boolean fp4 = codes.dtype() == DType.U8 || codes.dtype() == DType.F4;
    if (nv) {
      parts.dtype(codes, DType.U8, DType.F4);
    } else {
      parts.dtype(codes, DType.U8, DType.F4, DType.F8_E4M3, DType.F8_E5M2);
      checkElement(d, codes);
    }
    long n = codes.shape().get(0);
    long stored = codes.shape().get(1);
    long k = codes.dtype() == DType.U8 ? Math.multiplyExact(stored, 2L) : stored;
    long block = d.attributes.path("block_size").asLong(nv ? 16 : 32);
    boolean swizzled = d.attributes.path("is_swizzled_scales").asBoolean(false);
    Tensor scales = d.scales();
    parts.dtype(scales, DType.U8, nv ? DType.F8_E4M3 : DType.F8_E8M0);
    if (block < 1) {
      throw parts.problem(codes, "block_size " + block, "at least 1");
    }
    long across = Math.ceilDiv(k, block);
    parts.count(
        scales,
        swizzled
            ? Math.multiplyExact(Math.ceilDiv(n, 128L) * 128, Math.ceilDiv(across, 4L) * 4)
            : Math.multiplyExact(n, across));
    Optional<Tensor> global = Optional.ofNullable(d.roles.get("global_scale"));
    global.ifPresent(t -> parts.floats(t, 1));
    Encoding encoding = fp4 ? Encoding.F4_E2M1 : Parts.encoding(codes);
    Matrix.Values values =
        new Matrix.Values(nv ? Encoding.F8_E4M3 : Encoding.F8_E8M0, scales.data());
    Encoding dtype = dtype(d, "orig_dtype");
    TorchAoLayout layout = new TorchAoLayout(d.type, encoding);
    return weight(
        d,
        List.of(n, k),
        layout,
        () ->
            layout.microscaled(
                n,
                k,
                codes.data(),
                block,
                values,
                swizzled,
                global.map(SmallParts::first).orElse(1f),
                dtype),
        dtype);
  }

  private void checkElement(Draft d, Tensor codes) {
    String declared = d.attributes.path("elem_dtype").path("_data").asText("");
    String found =
        switch (codes.dtype()) {
          case F8_E4M3 -> "float8_e4m3fn";
          case F8_E5M2 -> "float8_e5m2";
          default -> "float4_e2m1fn_x2";
        };
    if (!declared.equals(found)) {
      throw parts.problem(codes, codes.dtype() + " codes", "elem_dtype " + Problem.quote(declared));
    }
  }

  private QuantizedTensor weight(
      Draft d, List<Long> shape, TorchAoLayout layout, Supplier<Matrix> matrix, Encoding dtype) {
    Tensor multiplier = d.roles.get(QuantizedTensor.INPUT_MULTIPLIER);
    if (multiplier != null) {
      parts.floats(multiplier, shape.stream().skip(1).reduce(1L, Math::multiplyExact));
    }
    return QuantizedTensor.lazy(d.layer, shape, layout, d.roles, matrix, dtype);
  }

  private List<Long> sizes(Draft d, String key) {
    List<Long> sizes = new ArrayList<>();
    JsonNode value = d.attributes.path(key);
    boolean good = value.isArray() && !value.isEmpty() && value.size() <= 8;
    for (JsonNode size : value) {
      good &= size.isIntegralNumber() && size.canConvertToLong() && size.asLong() > 0;
      sizes.add(size.asLong());
    }
    if (!good) {
      throw Problem.tensor(
          parts.source().path(),
          d.name,
          key + " " + Problem.quote(value.toString()) + " in its metadata",
          "sizes of at least 1");
    }
    return sizes;
  }

  private Encoding dtype(Draft d, String key) {
    String text = d.attributes.path(key).path("_data").asText("");
    return switch (text) {
      case "float32" -> Encoding.F32;
      case "float16" -> Encoding.F16;
      case "bfloat16" -> Encoding.BF16;
      default ->
          throw Problem.tensor(
              parts.source().path(),
              d.name,
              key + " " + Problem.quote(d.attributes.path(key).toString()) + " in its metadata",
              "float32, float16 or bfloat16");
    };
  }
}
