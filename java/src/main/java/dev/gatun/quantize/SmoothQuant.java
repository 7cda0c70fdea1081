package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Moves outliers from activations into weights before both are quantized: {@code y = (x / s) · (W ·
 * s)ᵀ} with {@code s[k] = max|x[k]|^α / max|W[k]|^(1-α)} for every column. 1 / s goes into
 * ComfyUI's {@code pre_quant_scale}, by which x is multiplied. Source: Xiao et al., SmoothQuant,
 * equation 4.
 */
public final class SmoothQuant {
  private static final String WEIGHT = ".weight";
  private static final String PRE_QUANT_SCALE = ".pre_quant_scale";

  /** Factors stay within this and its reciprocal. */
  private static final double LARGEST = 1e4;

  private SmoothQuant() {}

  /**
   * The factors s of a layer.
   *
   * @param columns largest magnitude of each column of x, from {@link Calibration#columns}
   * @param weight [N, K] of F32, F16 or BF16
   * @param alpha 0 to 1: how much of the difficulty moves to the weight
   */
  public static float[] factors(float[] columns, Tensor weight, double alpha) {
    if (!(alpha >= 0 && alpha <= 1)) {
      throw new GatunException("smoothing: found an alpha of " + alpha + ", expected 0 to 1");
    }
    int k = columns.length;
    if (weight.shape().size() != 2 || weight.shape().get(1) != k) {
      throw new GatunException(
          weight.name() + ": found shape " + weight.shape() + ", expected [N, " + k + "]");
    }
    Encoding type = type(weight);
    float[] largest = new float[k];
    for (long i = 0; i < weight.elements(); i++) {
      int column = (int) (i % k);
      largest[column] = Math.max(largest[column], Math.abs(Numbers.get(type, weight.data(), i)));
    }
    float[] factors = new float[k];
    for (int i = 0; i < k; i++) {
      double s = Math.pow(columns[i], alpha) / Math.pow(largest[i], 1 - alpha);
      // A column of zeros has nothing to move.
      boolean none = columns[i] == 0 || largest[i] == 0 || !Double.isFinite(s);
      factors[i] = none ? 1 : (float) Math.clamp(s, 1 / LARGEST, LARGEST);
    }
    return factors;
  }

  private static Encoding type(Tensor weight) {
    return weight
        .dtype()
        .encoding()
        .filter(Encoding::isPlain)
        .orElseThrow(
            () ->
                new GatunException(
                    weight.name()
                        + ": found type "
                        + weight.dtype()
                        + ", expected F32, F16 or BF16"));
  }

  /**
   * Writes a checkpoint of plain floats with smoothed weights, each with its {@code
   * pre_quant_scale}: to be quantized to one of ComfyUI's formats next.
   *
   * @param factors s by plain layer name; other layers are copied
   */
  public static void write(Checkpoint source, Map<String, float[]> factors, Path target) {
    Map<String, Tensor> weights = new LinkedHashMap<>();
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    for (String layer : factors.keySet()) {
      Tensor weight = source.tensor(layer + WEIGHT);
      weights.put(weight.name(), weight);
      entries.add(
          new SafetensorsWriter.Entry(
              layer + PRE_QUANT_SCALE, weight.dtype(), List.of(weight.shape().get(1))));
    }
    source.tensors().values().forEach(tensor -> entries.add(SafetensorsWriter.Entry.of(tensor)));
    try (SafetensorsWriter out = SafetensorsWriter.create(target, entries, source.metadata())) {
      for (Tensor tensor : source.tensors().values()) {
        if (!weights.containsKey(tensor.name())) {
          Quantizer.copy(source, tensor, out);
        }
      }
      factors.forEach((layer, s) -> smooth(source.tensor(layer + WEIGHT), s, layer, out));
      out.commit();
    }
  }

  private static void smooth(Tensor weight, float[] s, String layer, SafetensorsWriter out) {
    Encoding type = type(weight);
    DType dtype = weight.dtype();
    int size = type.bits() / 8;
    try (Arena arena = Arena.ofShared()) {
      MemorySegment scale = arena.allocate(Math.max(1, (long) s.length * size), 64);
      MemorySegment smoothed = arena.allocate(Math.max(1, weight.data().byteSize()), 64);
      for (int i = 0; i < s.length; i++) {
        Numbers.put(type, scale, i, 1 / s[i]);
      }
      for (long i = 0; i < weight.elements(); i++) {
        // By what x will really be divided: the reciprocal has been rounded.
        float stored = Numbers.get(type, scale, i % s.length);
        Numbers.put(type, smoothed, i, Numbers.get(type, weight.data(), i) / stored);
      }
      out.write(weight.name(), smoothed.asSlice(0, weight.elements() * size));
      out.write(layer + PRE_QUANT_SCALE, scale.asSlice(0, (long) s.length * size));
    } catch (GatunException e) {
      throw new GatunException(layer + " (" + dtype + "): " + e.getMessage(), e);
    }
  }
}
