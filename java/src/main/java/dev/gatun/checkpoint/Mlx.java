package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.MlxLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * MLX: {@code X.weight} in 32-bit words with {@code X.scales} and, in the affine mode, {@code
 * X.biases}. Mode, width and group come from {@code config.json}'s {@code quantization}, which may
 * have an entry for a single layer. Source: mlx.nn.layers.quantized, mlx/ops.cpp.
 */
public final class Mlx implements ReadOnlyFormat {
  private static final String SCALES = ".scales";

  /** For {@link java.util.ServiceLoader}. */
  public Mlx() {}

  @Override
  public String name() {
    return "mlx";
  }

  @Override
  public Found read(CheckpointSource source) {
    Reader reader = new Reader(new Parts(source), settings(source));
    List<QuantizedTensor> layers = new ArrayList<>();
    for (Tensor weight : source.tensors().values()) {
      String layer = Parts.layerOf(weight.name());
      boolean packed = weight.dtype() == DType.U32 && weight.name().endsWith(Parts.WEIGHT);
      if (packed && source.tensors().containsKey(layer + SCALES)) {
        layers.add(reader.layer(layer, weight));
      }
    }
    return new Found(layers, Map.of(), Map.of());
  }

  private static JsonNode settings(CheckpointSource source) {
    JsonNode config = source.sidecar("config.json");
    JsonNode own = config.path("quantization");
    return own.isObject() ? own : config.path("quantization_config");
  }

  private record Reader(Parts parts, JsonNode settings) {
    QuantizedTensor layer(String layer, Tensor weight) {
      parts.matrix(weight);
      Tensor scales = parts.require(layer + SCALES, "the scales of an MLX weight");
      parts.matrix(scales);
      long n = weight.shape().get(0);
      long groups = scales.shape().get(1);
      if (scales.shape().get(0) != n) {
        throw parts.problem(scales, "shape " + scales.shape(), "[" + n + ", groups]");
      }
      JsonNode own = settings.path(layer);
      String mode = setting(own, "mode").asText("affine");
      MlxLayout layout = layout(layer, weight, groups, own, mode);
      long words = weight.shape().get(1);
      long k = Math.multiplyExact(groups, layout.group());
      if (Math.multiplyExact(k, (long) layout.bits()) != Math.multiplyExact(words, 32L)) {
        throw parts.problem(
            weight,
            words + " words a row",
            groups + " groups of " + layout.group() + " codes of " + layout.bits() + " bits");
      }
      Map<String, Tensor> roles = new LinkedHashMap<>();
      roles.put("codes", weight);
      roles.put("scales", scales);
      return mode.equals("affine")
          ? affine(layer, layout, n, k, roles)
          : microscaled(layer, layout, n, k, roles);
    }

    private JsonNode setting(JsonNode own, String key) {
      return own.has(key) ? own.path(key) : settings.path(key);
    }

    private MlxLayout layout(String layer, Tensor weight, long groups, JsonNode own, String mode) {
      return switch (mode) {
        case "mxfp4" -> new MlxLayout(mode, 4, 32);
        case "mxfp8" -> new MlxLayout(mode, 8, 32);
        case "nvfp4" -> new MlxLayout(mode, 4, 16);
        case "affine" -> {
          long group = setting(own, "group_size").asLong(64);
          long rowBits = weight.shape().get(1) * 32;
          boolean fits = group >= 1 && group <= rowBits / Math.max(1, groups);
          long bits = setting(own, "bits").asLong(fits ? rowBits / Math.max(1, groups * group) : 0);
          if (!fits || bits < 2 || bits > 8 || bits == 7) {
            throw parts.problem(
                weight,
                "groups of " + group + " codes of " + bits + " bits",
                "2, 3, 4, 5, 6 or 8 bits");
          }
          yield new MlxLayout(mode, (int) bits, group);
        }
        default ->
            throw parts.problem(
                weight,
                "mode " + Problem.quote(mode) + " of " + Problem.quote(layer),
                "affine, mxfp4, mxfp8 or nvfp4");
      };
    }

    private QuantizedTensor affine(
        String layer, MlxLayout layout, long n, long k, Map<String, Tensor> roles) {
      Tensor codes = roles.get("codes");
      Tensor scales = roles.get("scales");
      Tensor biases = parts.require(layer + ".biases", "the biases of an affine MLX weight");
      parts.dtype(scales, DType.F16, DType.BF16, DType.F32);
      parts.dtype(biases, scales.dtype());
      parts.shape(biases, scales.shape().toArray(Long[]::new));
      roles.put("offsets", biases);
      Encoding dtype = Parts.encoding(scales);
      Matrix matrix =
          layout.matrix(
              n,
              k,
              codes.data(),
              Parts.values(scales),
              Optional.of(Parts.values(biases)),
              1f,
              dtype);
      return new QuantizedTensor(layer, List.of(n, k), layout, roles, matrix, dtype);
    }

    private QuantizedTensor microscaled(
        String layer, MlxLayout layout, long n, long k, Map<String, Tensor> roles) {
      Tensor codes = roles.get("codes");
      Tensor scales = roles.get("scales");
      parts.dtype(scales, DType.U8, DType.F8_E8M0, DType.F8_E4M3);
      Optional<Tensor> global = parts.find(layer + ".global_scale");
      global.ifPresent(
          t -> {
            parts.scalar(t);
            roles.put("global_scale", t);
          });
      Matrix.Values values = new Matrix.Values(layout.scaleType(), scales.data());
      return QuantizedTensor.lazy(
          layer,
          List.of(n, k),
          layout,
          roles,
          () ->
              layout.matrix(
                  n,
                  k,
                  codes.data(),
                  values,
                  Optional.empty(),
                  global.map(SmallParts::first).orElse(1f),
                  Encoding.BF16),
          Encoding.BF16);
    }
  }
}
