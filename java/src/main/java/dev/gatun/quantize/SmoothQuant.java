package dev.gatun.quantize;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Moves outliers from activations into weights before both are quantized: {@code y = (x / s) · (W ·
 * s)ᵀ} with {@code s[k] = max|x[k]|^α / max|W[k]|^(1-α)} for every column; columns of x below the
 * mean of all columns count as that. 1 / s goes into ComfyUI's {@code pre_quant_scale}, by which x
 * is multiplied. Source: Xiao et al., SmoothQuant, equation 4.
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
    // A column of which few batches saw little may be larger in another one: it counts as the mean.
    double mean = 0;
    for (float column : columns) {
      mean += (double) column / k;
    }
    float[] factors = new float[k];
    for (int i = 0; i < k; i++) {
      double s = Math.pow(Math.max(columns[i], mean), alpha) / Math.pow(largest[i], 1 - alpha);
      // A column of zeros has nothing to move.
      boolean none = mean == 0 || largest[i] == 0 || !Double.isFinite(s);
      factors[i] = none ? 1 : (float) Math.clamp(s, 1 / LARGEST, LARGEST);
    }
    return factors;
  }

  /**
   * The factors with the least error of y, relative in each row, among those of several alphas, and
   * of no smoothing, when a weight of 8-bit integers with one scale a row is multiplied by x
   * rounded to 8-bit integers with one scale for all, the best that there is.
   *
   * @param sample rows of x, from {@link Calibration#sample}
   * @param alphas to try
   */
  public static float[] best(
      float[] columns, float[] sample, Tensor weight, List<Double> alphas, Device device) {
    int k = columns.length;
    float[] best = new float[k];
    Arrays.fill(best, 1);
    if (k == 0 || sample.length == 0) {
      return best;
    }
    float[] exact;
    try (Linear linear = Linear.of(weight, null, Compute.F32, device)) {
      exact = OutputError.multiply(linear, sample);
    }
    double least = error(columns, sample, weight, best, exact, device);
    for (double alpha : alphas) {
      float[] factors = factors(columns, weight, alpha);
      double error = error(columns, sample, weight, factors, exact, device);
      if (error < least) {
        least = error;
        best = factors;
      }
    }
    return best;
  }

  private static double error(
      float[] columns, float[] sample, Tensor weight, float[] s, float[] exact, Device device) {
    int k = columns.length;
    int n = Math.toIntExact(weight.shape().get(0));
    Encoding type = type(weight);
    float[] smoothed = new float[n * k];
    for (int row = 0; row < n; row++) {
      float largest = 0;
      for (int i = 0; i < k; i++) {
        float w = Numbers.get(type, weight.data(), (long) row * k + i) * s[i];
        smoothed[row * k + i] = w;
        largest = Math.max(largest, Math.abs(w));
      }
      float scale = largest / 127;
      for (int i = row * k; scale > 0 && i < (row + 1) * k; i++) {
        smoothed[i] = (float) Math.rint(smoothed[i] / scale) * scale;
      }
    }
    float largest = 0;
    for (int i = 0; i < k; i++) {
      largest = Math.max(largest, columns[i] / s[i]);
    }
    float[] x = new float[sample.length];
    for (int i = 0; i < x.length; i++) {
      x[i] = sample[i] / s[i % k];
    }
    try (Arena arena = Arena.ofShared()) {
      MemorySegment data = arena.allocate((long) n * k * Float.BYTES, 64);
      data.copyFrom(MemorySegment.ofArray(smoothed));
      Tensor rounded = new Tensor(weight.name(), DType.F32, List.of((long) n, (long) k), data);
      try (Linear linear = Linear.of(rounded, null, Compute.F32, device)) {
        OutputError error = new OutputError(linear, x, exact, device.backend());
        return largest > 0 ? error.best(largest, Encoding.I8, false).error() : 0;
      }
    }
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
