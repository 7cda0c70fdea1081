package dev.gatun.quantize;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Rounding;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.OutputFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.ComfyFloat8Layout;
import dev.gatun.layout.ComfyInt8Layout;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
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
  /** What {@code gatun calibrate -o DIR} leaves beside a checkpoint. */
  public static final String FILE = "activation_scales.json";

  private static final String ACTIVATIONS = "activations";
  private static final String INPUT = ".input_scale";
  private static final String OUTPUT = ".output_scale";

  /** Of the formats that can be written, those with a place for scales. */
  public static final List<String> FORMATS =
      List.of(
          "comfy-int8",
          "comfy-int8-row",
          "comfy-scaled_fp8",
          "float8_e4m3fn",
          "float8_e5m2",
          "qfloat8_e4m3fn",
          "qfloat8_e4m3fnuz",
          "qfloat8_e5m2",
          "qint2",
          "qint4",
          "qint8");

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

  /** The scales as JSON: one entry a layer, under the names that checkpoints have for them. */
  public static String toJson(Map<String, Calibration.Scales> scales) {
    ObjectNode json = JsonNodeFactory.instance.objectNode();
    scales.forEach(
        (layer, found) ->
            json.putObject(layer)
                .put(ACTIVATIONS, found.encoding().name())
                .put(INPUT.substring(1), found.input())
                .put(OUTPUT.substring(1), found.output()));
    return json.toPrettyString() + "\n";
  }

  /** Writes {@link #FILE} into a directory. */
  public static void save(Map<String, Calibration.Scales> scales, Path directory) {
    try (OutputFile file = OutputFile.create(directory.resolve(FILE))) {
      file.write(0, MemorySegment.ofArray(toJson(scales).getBytes(StandardCharsets.UTF_8)));
      file.force();
      file.commit();
    }
  }

  /**
   * Reads {@link #FILE} of a directory.
   *
   * @throws GatunException when there is none, or it does not hold scales
   */
  public static Map<String, Calibration.Scales> read(Path directory) {
    Path file = directory.resolve(FILE);
    JsonNode json;
    try {
      json = new ObjectMapper().readTree(Files.readAllBytes(file));
    } catch (JsonProcessingException e) {
      throw new GatunException(file + ": found no JSON, expected one entry a layer", e);
    } catch (IOException e) {
      throw new GatunException(file + ": cannot be read (" + e.getMessage() + ")", e);
    }
    Map<String, Calibration.Scales> scales = new LinkedHashMap<>();
    for (Map.Entry<String, JsonNode> entry : json.properties()) {
      scales.put(entry.getKey(), scales(file, entry.getKey(), entry.getValue()));
    }
    if (scales.isEmpty()) {
      throw new GatunException(file + ": found no layers, expected one entry a layer");
    }
    return scales;
  }

  private static Calibration.Scales scales(Path file, String layer, JsonNode json) {
    String type = json.path(ACTIVATIONS).asText("");
    float input = (float) json.path(INPUT.substring(1)).asDouble(Double.NaN);
    float output = (float) json.path(OUTPUT.substring(1)).asDouble(Double.NaN);
    Encoding encoding =
        Arrays.stream(Encoding.values())
            .filter(known -> known.name().equals(type))
            .findFirst()
            .orElse(Encoding.F32);
    try {
      // Refuse what no layer can be rounded with.
      new Rounding(encoding, input, false);
      new Rounding(encoding, output, false);
    } catch (GatunException e) {
      throw new GatunException(
          file
              + ": layer '"
              + layer
              + "': found "
              + json
              + ", expected "
              + ACTIVATIONS
              + " (I8 or an 8-bit float) and two positive scales",
          e);
    }
    return new Calibration.Scales(encoding, input, output);
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
