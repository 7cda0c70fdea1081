package dev.gatun.quantize;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.StaticActivations;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * Finds the scales of static activations: a model runs as always, on layers from {@link #linear}
 * instead of {@link Checkpoint#linear}, which see what passes through them.
 *
 * <pre>{@code
 * Calibration calibration = new Calibration(Calibration.Settings.quanto(Encoding.I8));
 * Linear layer = calibration.linear(checkpoint, "encoder.layer.0.output.dense", device);
 * … forward passes over representative inputs …
 * ActivationScales.write(checkpoint, calibration.scales(), target);
 * }</pre>
 *
 * <p>As quanto's {@code Calibration} does, a layer multiplies with x rounded by the scale found so
 * far, so that what comes after it is calibrated on what it will really get. Safe for any number of
 * threads; the order of batches matters to {@link Method#MOMENTUM}.
 */
public final class Calibration {
  /** How a scale comes from what was seen. */
  public enum Method {
    /** quanto's running mean of the batches' absmax. */
    MOMENTUM,
    /** The largest magnitude of all. */
    ABSMAX,
    /** The magnitude that a share of all numbers does not exceed. */
    PERCENTILE,
    /** The one with the least squared error, over a histogram. */
    HISTOGRAM,
    /**
     * Of inputs, the one with which rounding changes y least, tried out on a sample of the rows of
     * x when the observed layer is closed; until then, and of outputs, as {@link #HISTOGRAM}.
     */
    OUTPUT_ERROR
  }

  /**
   * How to calibrate.
   *
   * @param encoding of the activations: I8 or an 8-bit float
   * @param method of finding scales
   * @param momentum of {@link Method#MOMENTUM}, 0 to 1, for outputs; quanto's argument does not
   *     reach the inputs, which always have {@link #INPUT_MOMENTUM}
   * @param percentile of {@link Method#PERCENTILE}, above 0 to 100
   * @param roundOutputs whether y is rounded on the way as well; quanto does so unless it finds
   *     (streamline) that the output is used by operations on floats alone
   */
  public record Settings(
      Encoding encoding, Method method, double momentum, double percentile, boolean roundOutputs) {
    /** Refuses numbers out of range. */
    public Settings {
      Objects.requireNonNull(encoding, "encoding");
      Objects.requireNonNull(method, "method");
      if (!(momentum >= 0 && momentum <= 1)) {
        throw new GatunException(
            "calibration: found a momentum of " + momentum + ", expected 0 to 1");
      }
      if (!(percentile > 0 && percentile <= 100)) {
        throw new GatunException(
            "calibration: found a percentile of " + percentile + ", expected above 0 to 100");
      }
      new StaticActivations(encoding, false, false); // refuses other encodings
    }

    /** quanto's defaults: momentum 0.9, outputs streamlined. */
    public static Settings quanto(Encoding encoding) {
      return of(encoding, Method.MOMENTUM);
    }

    /** A method with its defaults: momentum 0.9, percentile 99.99, outputs not rounded. */
    public static Settings of(Encoding encoding, Method method) {
      return new Settings(encoding, method, INPUT_MOMENTUM, 99.99, false);
    }
  }

  /**
   * What was found for a layer.
   *
   * @param encoding of the activations
   * @param input scale of x
   * @param output scale of y, before what is fused with the layer
   */
  public record Scales(Encoding encoding, float input, float output) {}

  /** quanto's momentum of input scales, whatever it is told. */
  public static final double INPUT_MOMENTUM = 0.9;

  private final Settings settings;
  private final Map<String, ObservedLinear.Ranges> ranges = new LinkedHashMap<>();

  /** Has seen nothing yet. */
  public Calibration(Settings settings) {
    this.settings = Objects.requireNonNull(settings, "settings");
  }

  /** How it calibrates. */
  public Settings settings() {
    return settings;
  }

  /**
   * A layer that is observed; it rounds x with the scale found so far and multiplies the weight as
   * it dequantizes. A layer may be asked for again, to go on with the same scales.
   *
   * @param layer plain name, with or without {@code .weight}
   */
  public Linear linear(Checkpoint checkpoint, String layer, Device device) {
    String name = checkpoint.plainName(layer);
    Tensor bias = checkpoint.bias(name).orElse(null);
    if (checkpoint.layers().containsKey(name)) {
      return linear(checkpoint.quantized(name), bias, device);
    }
    return observe(
        name, checkpoint.linear(name, Compute.F32, device), null, Optional.empty(), device);
  }

  /** The same for a weight from elsewhere. */
  public Linear linear(QuantizedTensor weight, @Nullable Tensor bias, Device device) {
    Map<String, Tensor> parts = new LinkedHashMap<>(weight.parts());
    Tensor multiplier = parts.remove(QuantizedTensor.INPUT_MULTIPLIER);
    QuantizedTensor plain = weight.with(weight.shape(), parts, weight.matrix(), weight.dtype());
    Linear linear = Linear.of(plain, bias, Compute.F32, device);
    return observe(weight.name(), linear, multiplier, weight.activations(), device);
  }

  private Linear observe(
      String name,
      Linear linear,
      @Nullable Tensor multiplier,
      Optional<StaticActivations> how,
      Device device) {
    boolean reciprocal = how.map(StaticActivations::reciprocal).orElse(false);
    ObservedLinear.Ranges seen = ranges(name, Math.toIntExact(linear.inFeatures()));
    return new ObservedLinear(linear, multiplier, seen, settings, reciprocal, device);
  }

  private ObservedLinear.Ranges ranges(String module, int columns) {
    synchronized (ranges) {
      return ranges.computeIfAbsent(module, name -> new ObservedLinear.Ranges(settings, columns));
    }
  }

  /**
   * Sees what passes through a module that is no linear layer: a layer norm, a convolution. What
   * comes after it goes on with y as it is.
   *
   * @param x the module's input
   * @param y its output
   */
  public void see(String module, float[] x, float[] y) {
    ObservedLinear.Ranges seen = ranges(module, 0);
    seen.input(x, Encoding.F32);
    seen.output(y, Encoding.F32);
  }

  /** What was found, by layer, for every layer that something has passed through. */
  public Map<String, Scales> scales() {
    synchronized (ranges) {
      Map<String, Scales> scales = new LinkedHashMap<>();
      ranges.forEach((name, seen) -> seen.scales().ifPresent(found -> scales.put(name, found)));
      return Collections.unmodifiableMap(scales);
    }
  }

  /** Some rows of a layer's x, row-major, drawn evenly from all of them: at most 256. */
  public Optional<float[]> sample(String layer) {
    synchronized (ranges) {
      return Optional.ofNullable(ranges.get(layer)).map(ObservedLinear.Ranges::sample);
    }
  }

  /** The largest magnitude of each column of a layer's x: what {@link SmoothQuant} starts from. */
  public Optional<float[]> columns(String layer) {
    synchronized (ranges) {
      return Optional.ofNullable(ranges.get(layer)).map(ObservedLinear.Ranges::columns);
    }
  }
}
