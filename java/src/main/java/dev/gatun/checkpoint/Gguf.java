package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.codec.GgufBlocks;
import dev.gatun.kernel.codec.GgufQuantizer;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.GgufLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;

/**
 * GGUF: every tensor of a block type is a weight of its own, dequantized to floats as ggml does. A
 * tensor {@code X.scale} of one number beside a weight {@code X.weight} of NVFP4 multiplies it.
 */
public final class Gguf implements CheckpointFormat {
  private static final String PREFIX = "gguf-";
  private static final String ORIGINAL_SHAPE = "comfy.gguf.orig_shape.";
  static final String SCALE = ".scale";
  private static final String INPUT_SCALE = ".input_scale";

  /** For {@link java.util.ServiceLoader}. */
  public Gguf() {}

  @Override
  public String name() {
    return "gguf";
  }

  @Override
  public Found read(CheckpointSource source) {
    Parts parts = new Parts(source);
    List<QuantizedTensor> layers = new ArrayList<>();
    Map<String, String> side = new LinkedHashMap<>();
    Map<String, String> unsupported = new LinkedHashMap<>();
    for (Tensor tensor : source.tensors().values()) {
      if (!tensor.dtype().isBlock()) {
        continue;
      }
      String layer = Parts.layerOf(tensor.name());
      Optional<Encoding> encoding = tensor.dtype().encoding().filter(GgufBlocks::decodes);
      if (encoding.isEmpty()) {
        unsupported.put(
            layer,
            "found "
                + tensor.dtype()
                + " blocks, whose tables are not part of this library, expected another type");
        side.put(tensor.name(), tensor.dtype() + " blocks, which cannot be decoded");
        continue;
      }
      Optional<Tensor> scale =
          encoding.get() == Encoding.NVFP4 ? parts.find(layer + SCALE) : Optional.empty();
      layers.add(layer(parts, layer, tensor, encoding.get(), scale));
      if (scale.isPresent()) {
        parts
            .find(layer + INPUT_SCALE)
            .ifPresent(t -> side.put(t.name(), "scale of an NVFP4 layer's activations"));
      }
    }
    return new Found(layers, side, unsupported);
  }

  private static QuantizedTensor layer(
      Parts parts, String layer, Tensor tensor, Encoding encoding, Optional<Tensor> scale) {
    GgufLayout layout = new GgufLayout(encoding);
    List<Long> shape = shape(parts, tensor);
    Parts.Size own = Parts.Size.of(shape);
    // Rows that are no whole blocks stay those of the file: the numbers lie in the same order.
    Parts.Size size = own.k() % encoding.blockElements() == 0 ? own : Parts.Size.of(tensor.shape());
    Map<String, Tensor> roles = new LinkedHashMap<>();
    roles.put("codes", tensor);
    float factor = 1f;
    if (scale.isPresent()) {
      parts.dtype(scale.get(), DType.F32);
      if (scale.get().elements() != 1) {
        throw parts.problem(scale.get(), "shape " + scale.get().shape(), "one number");
      }
      factor = Numbers.get(Encoding.F32, scale.get().data(), 0);
      roles.put("scale", scale.get());
    }
    return new QuantizedTensor(
        layer,
        shape,
        layout,
        roles,
        layout.matrix(size.n(), size.k(), tensor.data(), factor),
        Encoding.F32);
  }

  /**
   * The shape that the metadata gives a tensor that was reshaped to be quantized, as ComfyUI-GGUF
   * writes it; else the tensor's own.
   */
  private static List<Long> shape(Parts parts, Tensor tensor) {
    String text = parts.source().metadata().get(ORIGINAL_SHAPE + tensor.name());
    if (text == null) {
      return tensor.shape();
    }
    List<Long> shape = new ArrayList<>();
    boolean good = text.matches("\\[\\d{1,18}(, \\d{1,18}){0,7}]");
    if (good) {
      for (String size : text.substring(1, text.length() - 1).split(", ", -1)) {
        shape.add(Long.parseLong(size));
      }
    }
    if (!good || shape.stream().reduce(1L, Math::multiplyExact) != tensor.elements()) {
      throw parts.problem(
          tensor,
          "shape " + Problem.quote(text) + " in the metadata",
          "one of the " + tensor.elements() + " elements of " + tensor.shape());
    }
    return shape;
  }

  /** What a file of other types, or of none, must not say. */
  @Override
  public Set<String> metadataKeys() {
    return Set.of(
        GgufFile.ALIGNMENT, GgufLayerWriter.FILE_TYPE, GgufLayerWriter.QUANTIZATION_VERSION);
  }

  @Override
  public Map<String, String> writes() {
    Map<String, String> writes = new TreeMap<>();
    for (Encoding encoding : Encoding.values()) {
      if (GgufQuantizer.writes(encoding)) {
        writes.put(formatName(encoding), new GgufLayout(encoding).describe());
      }
    }
    return writes;
  }

  private static String formatName(Encoding encoding) {
    return PREFIX + encoding.name().toLowerCase(Locale.ROOT);
  }

  @Override
  public LayerWriter writer(String format) {
    for (Encoding encoding : Encoding.values()) {
      if (GgufQuantizer.writes(encoding) && formatName(encoding).equals(format)) {
        return new GgufLayerWriter(encoding);
      }
    }
    throw new GatunException(
        "no format '" + format + "' in gguf, expected one of " + writes().keySet());
  }
}
