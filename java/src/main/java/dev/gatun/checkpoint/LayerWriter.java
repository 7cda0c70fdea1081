package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.ScaleFitter;
import dev.gatun.kernel.ScaleMethod;
import dev.gatun.kernel.Scaling;
import java.lang.foreign.Arena;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.UnaryOperator;

/**
 * Quantizes and names the weights of one output checkpoint, layer by layer. Keeps nothing from one
 * layer to the next: layers are quantized in any order, on any thread, and those that an earlier,
 * interrupted run has written are not quantized again.
 */
public interface LayerWriter extends QuantizationLifecycle {
  /**
   * One quantized weight.
   *
   * @param tensors what stands for it in the file, under the names of the format's own library
   * @param matrix the same for the kernels: to dequantize it and measure the error
   */
  record Quantized(List<Tensor> tensors, Matrix matrix) {}

  /**
   * A weight of a format that has memory and no numbers yet.
   *
   * @param tensors what will stand for it in the file
   * @param matrix the same for the kernels, to be filled
   * @param finish what becomes of the matrix when everything is filled in
   */
  record Blank(List<Tensor> tensors, Matrix matrix, UnaryOperator<Matrix> finish) {
    /** One whose matrix stays as it is. */
    public static Blank of(List<Tensor> tensors, Matrix matrix) {
      return new Blank(tensors, matrix, UnaryOperator.identity());
    }

    /** The weight, once everything is filled in. */
    public Quantized finished() {
      return new Quantized(tensors, finish.apply(matrix));
    }
  }

  /**
   * A layer that is in the output checkpoint.
   *
   * @param layer plain name without {@code .weight}
   * @param format the name that it was written under, one of {@link CheckpointFormat#writes()}
   * @param dtype of the weight before: F32, F16 or BF16
   * @param shape of the weight before
   * @param tensors what stands for it in the file
   * @param activations what its activations are rounded to with the scales that are among the
   *     tensors; empty: they are not
   */
  record Written(
      String layer,
      String format,
      DType dtype,
      List<Long> shape,
      List<SafetensorsWriter.Entry> tensors,
      Optional<Encoding> activations) {
    /** A layer whose activations are not rounded. */
    public Written(
        String layer,
        String format,
        DType dtype,
        List<Long> shape,
        List<SafetensorsWriter.Entry> tensors) {
      this(layer, format, dtype, shape, tensors, Optional.empty());
    }

    /** Copies the lists. */
    public Written {
      shape = List.copyOf(shape);
      tensors = List.copyOf(tensors);
    }
  }

  /**
   * Quantizes one weight.
   *
   * @param layer plain name without {@code .weight}
   * @param weight F32, F16 or BF16, [N, K]
   * @param backend who quantizes
   * @param arena where the new tensors' memory comes from; must allow access from any thread
   */
  Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena);

  /**
   * Why this format does not choose scales or round in such a way, in one clause; empty when it
   * does. What the format's own library does, no format refuses.
   */
  default Optional<String> refuses(Scaling scaling) {
    return scaling.scale().kind() == ScaleMethod.Kind.HQQ
        ? Optional.of("it has no offsets that half-quadratic quantization could choose")
        : Optional.empty();
  }

  /**
   * Quantizes one weight with scales and codes chosen in a way of the caller's. What is inherited
   * lets the format's library choose first, and then fits scales and codes to the weight.
   *
   * @param layer plain name without {@code .weight}
   * @param weight F32, F16 or BF16, [N, K]
   * @param scaling one that the format does not refuse
   * @param backend who quantizes
   * @param arena where the new tensors' memory comes from; must allow access from any thread
   */
  default Quantized quantize(
      String layer, Tensor weight, Scaling scaling, Backend backend, Arena arena) {
    Quantized quantized = quantize(layer, weight, backend, arena);
    ScaleFitter.fit(
        quantized.matrix(), weight.data(), Parts.encoding(weight), scaling.forLayer(layer));
    return quantized;
  }

  /**
   * The way to quantize a weight some rows at a time, as the format's library would; empty when
   * this format needs all of it at once. Its tensors' sizes are then known before its values are.
   *
   * @param layer plain name without {@code .weight}
   * @param weight F32, F16 or BF16, [N, K]; its numbers are not looked at
   */
  default Optional<RowQuantizer> byRows(String layer, Tensor weight) {
    return Optional.empty();
  }

  /** Of a format whose tensors' sizes follow from the shape: theirs. */
  @Override
  default double targetBits(Tensor weight) {
    String layer = weight.name().replaceFirst("\\.weight$", "");
    return byRows(layer, weight)
        .map(
            rows ->
                8.0
                    * rows.entries().stream().mapToLong(SafetensorsWriter.Entry::byteSize).sum()
                    / weight.elements())
        .orElseGet(() -> QuantizationLifecycle.super.targetBits(weight));
  }

  /**
   * Room for a quantized weight's codes and scales in this format, if it has a layout that might
   * hold them as they are.
   *
   * @param layer plain name without {@code .weight}
   * @param weight as another format, or another variant of this one, holds it
   */
  default Optional<Blank> blank(String layer, QuantizedTensor weight, Arena arena) {
    return Optional.empty();
  }

  /**
   * Tensors that the file has once, beside those of the layers.
   *
   * @param layers every layer of this checkpoint format, in the source's order
   */
  default List<Tensor> once(List<Written> layers) {
    return List.of();
  }

  /**
   * The name of the tensor that says what x is divided by before it is rounded to the weight's
   * encoding ({@link QuantizedTensor#INPUT_SCALE}); empty when a layer that is laid out anew from
   * the same checkpoint format does not keep it.
   *
   * @param layer plain name
   */
  default Optional<String> inputScale(String layer) {
    return Optional.empty();
  }

  /**
   * The names of the tensors for a layer's static activations by role ({@link
   * QuantizedTensor#INPUT_SCALE}, {@link QuantizedTensor#OUTPUT_SCALE}), where they do not depend
   * on the weight's encoding: a layer that stays in its checkpoint format keeps them. Empty when
   * there are none.
   *
   * @param layer plain name
   */
  default Map<String, String> activations(String layer) {
    return Map.of();
  }

  /**
   * The name of the tensor that x is multiplied by before the weight is applied ({@link
   * QuantizedTensor#INPUT_MULTIPLIER}); empty when this format has none.
   *
   * @param layer plain name
   */
  default Optional<String> inputMultiplier(String layer) {
    return Optional.empty();
  }

  /**
   * Starts the file that the tensors go into: a safetensors file, unless the format has a container
   * of its own.
   *
   * @param file without bytes of its own yet; closed with what is returned, or by an exception
   * @param entries every tensor that will be written
   * @param source what is quantized
   * @param metadata the source's and {@link #metadata}
   */
  default TensorFileWriter create(
      OutputFile file,
      Collection<SafetensorsWriter.Entry> entries,
      Checkpoint source,
      Map<String, String> metadata) {
    return SafetensorsWriter.create(file, entries, metadata);
  }

  /**
   * Metadata for the container: {@code __metadata__}.
   *
   * @param layers every layer of this checkpoint format, in the source's order
   * @param copied the names of all other tensors
   */
  default Map<String, String> metadata(List<Written> layers, List<String> copied) {
    return Map.of();
  }

  /**
   * JSON files to write beside the checkpoint, by name: {@code quantization_map.json}.
   *
   * @param layers every layer of this checkpoint format, in the source's order
   */
  default Map<String, String> sidecars(List<Written> layers) {
    return Map.of();
  }
}
