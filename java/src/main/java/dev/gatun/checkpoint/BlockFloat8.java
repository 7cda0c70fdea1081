package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.layout.BlockFloat8Layout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * 8-bit floats with {@code X.weight_scale_inv}, one scale per block (128 × 128 unless {@code
 * config.json} says otherwise), as DeepSeek's checkpoints carry them. Dequantized to the model's
 * {@code torch_dtype}, BF16 when it is not known. Source: DeepSeek-V3, inference/fp8_cast_bf16.py.
 */
public final class BlockFloat8 implements ReadOnlyFormat {
  private static final String SCALES = ".weight_scale_inv";

  /** For {@link java.util.ServiceLoader}. */
  public BlockFloat8() {}

  @Override
  public String name() {
    return "fp8-block";
  }

  @Override
  public Found read(CheckpointSource source) {
    Parts parts = new Parts(source);
    List<QuantizedTensor> layers = new ArrayList<>();
    for (Tensor scales : source.tensors().values()) {
      if (scales.name().endsWith(SCALES)) {
        layers.add(layer(parts, scales));
      }
    }
    return new Found(layers, Map.of(), Map.of());
  }

  private static QuantizedTensor layer(Parts parts, Tensor scales) {
    String layer = scales.name().substring(0, scales.name().length() - SCALES.length());
    Tensor weight =
        parts.require(
            layer + Parts.WEIGHT, "the weight that " + Problem.quote(scales.name()) + " scales");
    parts.dtype(weight, DType.F8_E4M3);
    parts.dtype(scales, DType.F32, DType.BF16, DType.F16, DType.F8_E8M0);
    parts.matrix(weight);
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    JsonNode config = parts.source().sidecar("config.json");
    JsonNode block = config.path("quantization_config").path("weight_block_size");
    long rows = block.path(0).asLong(128);
    long columns = block.path(1).asLong(128);
    if (rows < 1 || columns < 1) {
      throw parts.problem(
          scales,
          "weight_block_size " + Problem.quote(block.toString()),
          "two sizes of at least 1");
    }
    parts.shape(scales, Math.ceilDiv(n, rows), Math.ceilDiv(k, columns));
    Map<String, Tensor> roles = new LinkedHashMap<>();
    roles.put("codes", weight);
    roles.put("scales", scales);
    parts.find(layer + ".input_scale").ifPresent(t -> roles.put("input_scale", t));
    BlockFloat8Layout layout = new BlockFloat8Layout(rows, columns);
    Encoding dtype = modelType(config);
    return new QuantizedTensor(
        layer,
        weight.shape(),
        layout,
        roles,
        layout.matrix(n, k, weight.data(), Parts.values(scales), dtype),
        dtype);
  }

  /** The type that {@code config.json} gives the model; BF16 when it says nothing. */
  private static Encoding modelType(JsonNode config) {
    JsonNode type = config.path("torch_dtype");
    return switch ((type.isMissingNode() ? config.path("dtype") : type).asText("")) {
      case "float32" -> Encoding.F32;
      case "float16" -> Encoding.F16;
      default -> Encoding.BF16;
    };
  }
}
