package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.ComfyFloat8Layout;
import dev.gatun.layout.ComfyInt8Layout;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Writes the scales that a {@link Calibration} found into a quantized checkpoint, where its format
 * has a place for them: ComfyUI's {@code float8_*} and {@code int8_tensorwise} layers ({@code
 * input_scale}; ComfyUI itself uses it for the former only) and quanto's modules ({@code
 * input_scale} and {@code output_scale}, and the type of the activations in {@code
 * quantization_map.json}).
 */
public final class ActivationScales {
  private static final String INPUT = ".input_scale";
  private static final String OUTPUT = ".output_scale";

  private ActivationScales() {}

  /**
   * Copies a checkpoint with these scales; nothing else of it changes.
   *
   * @param source opened from one file or several
   * @param scales by plain layer name
   * @param target a safetensors file; quanto's map goes beside it
   * @throws GatunException when a layer's format cannot hold them, or the file cannot be written
   */
  public static void write(Checkpoint source, Map<String, Calibration.Scales> scales, Path target) {
    Map<String, Tensor> replaced = new LinkedHashMap<>();
    QuantizationMap map = QuantizationMap.of(source);
    for (Map.Entry<String, Calibration.Scales> entry : scales.entrySet()) {
      String layer = entry.getKey();
      QuantizedTensor weight = source.quantized(layer);
      Calibration.Scales found = entry.getValue();
      String format = source.format(layer).map(CheckpointFormat::name).orElse("");
      switch (format) {
        case "comfyui" -> {
          boolean fits =
              switch (weight.layout()) {
                case ComfyFloat8Layout floats -> found.encoding() == Encoding.F8_E4M3;
                case ComfyInt8Layout integers ->
                    found.encoding() == Encoding.I8 && integers.rotation() == 0;
                default -> false;
              };
          if (!fits) {
            throw noPlace(
                source,
                layer,
                weight,
                found,
                "float8 with F8_E4M3 activations, or int8_tensorwise with I8");
          }
          put(replaced, weight, QuantizedTensor.INPUT_SCALE, INPUT, DType.F32, found.input());
        }
        case "quanto" -> {
          DType dtype = DType.valueOf(weight.dtype().name());
          put(replaced, weight, QuantizedTensor.INPUT_SCALE, INPUT, dtype, found.input());
          put(replaced, weight, QuantizedTensor.OUTPUT_SCALE, OUTPUT, dtype, found.output());
          map = map.withActivations(layer, found.encoding());
        }
        default -> throw noPlace(source, layer, weight, found, "a format of comfyui or quanto");
      }
    }
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    for (Tensor tensor : source.tensors().values()) {
      entries.add(SafetensorsWriter.Entry.of(replaced.getOrDefault(tensor.name(), tensor)));
    }
    for (Tensor tensor : replaced.values()) {
      if (!source.tensors().containsKey(tensor.name())) {
        entries.add(SafetensorsWriter.Entry.of(tensor));
      }
    }
    try (SafetensorsWriter out = SafetensorsWriter.create(target, entries, source.metadata())) {
      for (Tensor tensor : source.tensors().values()) {
        if (!replaced.containsKey(tensor.name())) {
          Quantizer.copy(source, tensor, out);
        }
      }
      replaced.values().forEach(tensor -> out.write(tensor.name(), tensor.data()));
      if (!map.modules().isEmpty()) {
        map.write(target.resolveSibling(QuantizationMap.FILE));
      }
      out.commit();
    }
  }

  private static void put(
      Map<String, Tensor> replaced,
      QuantizedTensor weight,
      String role,
      String ending,
      DType dtype,
      float value) {
    Tensor before = weight.part(role).orElse(null);
    String name = before == null ? weight.name() + ending : before.name();
    DType type = before == null ? dtype : before.dtype();
    List<Long> shape = before == null ? List.of() : before.shape();
    MemorySegment data = MemorySegment.ofArray(new byte[Math.max(1, type.bits() / 8)]);
    Numbers.put(type.encoding().orElseThrow(), data, 0, value);
    replaced.put(name, new Tensor(name, type, shape, data));
  }

  private static GatunException noPlace(
      Checkpoint source,
      String layer,
      QuantizedTensor weight,
      Calibration.Scales scales,
      String expected) {
    return new GatunException(
        source.path()
            + ": layer '"
            + layer
            + "': found "
            + weight.layout().name()
            + " with scales of "
            + scales.encoding()
            + " activations, expected "
            + expected);
  }
}
