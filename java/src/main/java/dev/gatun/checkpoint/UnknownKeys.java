package dev.gatun.checkpoint;

import dev.gatun.Tensor;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/** What a tensor that no format claimed probably is, by its name's ending or its type. */
final class UnknownKeys {
  private static final Map<String, String> BY_ENDING = new LinkedHashMap<>();

  static {
    BY_ENDING.put(".SCB", "row maxima of a bitsandbytes LLM.int8() weight");
    BY_ENDING.put(".weight_format", "layout mark of a bitsandbytes LLM.int8() weight");
    BY_ENDING.put(".absmax", "block maxima of a bitsandbytes weight without its quant_state");
    BY_ENDING.put(".quant_map", "codebook of a bitsandbytes weight without its quant_state");
    BY_ENDING.put(".qweight", "codes of a GPTQ or AWQ weight");
    BY_ENDING.put(".qzeros", "zero points of a GPTQ or AWQ weight");
    BY_ENDING.put(".g_idx", "group order of a GPTQ weight");
    BY_ENDING.put(".scales", "scales of a GPTQ, AWQ or MLX weight");
    BY_ENDING.put(".biases", "group offsets of an MLX weight");
    BY_ENDING.put(".weight_scale_inv", "128 x 128 block scales of an FP8 weight");
    BY_ENDING.put(".weight_packed", "codes of a compressed-tensors weight");
    BY_ENDING.put(".weight_global_scale", "global scale of a compressed-tensors weight");
    BY_ENDING.put(".weight_shape", "shape of a compressed-tensors weight");
    BY_ENDING.put(".weight_zero_point", "zero points of a compressed-tensors weight");
    BY_ENDING.put(".weight_scale_2", "global scale of an NVFP4 weight");
    BY_ENDING.put(".weight_scale", "scales of a weight that no format claimed");
    BY_ENDING.put(".scale_weight", "scale of a ComfyUI FP8 weight that is not there");
    BY_ENDING.put(".comfy_quant", "ComfyUI's mark of a quantized weight");
    BY_ENDING.put("_qdata", "codes of a torchao weight");
    BY_ENDING.put("_scale_and_zero", "scales of a torchao weight");
    BY_ENDING.put("._data", "codes of a quanto weight");
    BY_ENDING.put("._scale", "scales of a quanto weight");
    BY_ENDING.put("._shift", "zero points of a quanto weight");
  }

  private UnknownKeys() {}

  /** One line about the tensor; empty when it looks like a plain one. */
  static Optional<String> explain(Tensor tensor) {
    String name = tensor.name();
    int state = name.indexOf(".quant_state.");
    if (state >= 0) {
      return Optional.of("description of a bitsandbytes weight that no format claimed");
    }
    for (Map.Entry<String, String> entry : BY_ENDING.entrySet()) {
      if (name.endsWith(entry.getKey())) {
        return Optional.of(entry.getValue() + "; no format claimed it");
      }
    }
    return switch (tensor.dtype()) {
      case F4, F6_E2M3, F6_E3M2, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ ->
          Optional.of(tensor.dtype() + " codes of a quantized weight; no format claimed them");
      default -> Optional.empty();
    };
  }
}
