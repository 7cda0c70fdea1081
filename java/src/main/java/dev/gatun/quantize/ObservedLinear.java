package dev.gatun.quantize;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.Rounding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.LinearCheck;
import dev.gatun.kernel.codec.Activations;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * A layer that sees what passes through it. Not made for speed: it works in memory of its own, and
 * the epilogue is a pass over y.
 */
final class ObservedLinear implements Linear {
  /** What was seen of a layer's x and y. */
  static final class Ranges {
    private final Encoding encoding;
    private final RangeObserver input;
    private final RangeObserver output;
    private final float[] columns;
    private final RowSample sample;
    private boolean seen;
    private float chosen; // scale of x; 0: the observer says it

    Ranges(Calibration.Settings settings, int k) {
      encoding = settings.encoding();
      input = RangeObserver.of(settings, encoding, Calibration.INPUT_MOMENTUM);
      output = RangeObserver.of(settings, encoding, settings.momentum());
      columns = new float[k];
      sample = new RowSample(k);
    }

    synchronized float input(float[] x, Encoding type) {
      seen = true;
      chosen = 0;
      for (int i = 0; columns.length > 0 && i < x.length; i++) {
        int column = i % columns.length;
        columns[column] = Math.max(columns[column], Math.abs(x[i]));
      }
      sample.add(x);
      input.observe(x, x.length, type);
      return input.scale();
    }

    synchronized float output(float[] y, Encoding type) {
      output.observe(y, y.length, type);
      return output.scale();
    }

    synchronized Optional<Calibration.Scales> scales() {
      return seen
          ? Optional.of(
              new Calibration.Scales(encoding, chosen > 0 ? chosen : input.scale(), output.scale()))
          : Optional.empty();
    }

    /** Tries scales of x out. */
    synchronized void choose(Linear linear, boolean reciprocal, Backend backend) {
      float[] rows = sample.rows();
      float largest = 0;
      for (float column : columns) {
        largest = Math.max(largest, column);
      }
      if (rows.length > 0 && largest > 0) {
        chosen = new OutputError(linear, rows, backend).best(largest, encoding, reciprocal).scale();
      }
    }

    synchronized float[] columns() {
      return columns.clone();
    }

    synchronized float[] sample() {
      return sample.rows();
    }
  }

  private final Linear linear;
  private final float @Nullable [] multiplier;
  private final Ranges ranges;
  private final Calibration.Settings settings;
  private final boolean reciprocal;
  private final Device device;
  private boolean closed;

  ObservedLinear(
      Linear linear,
      @Nullable Tensor multiplier,
      Ranges ranges,
      Calibration.Settings settings,
      boolean reciprocal,
      Device device) {
    this.linear = linear;
    this.multiplier = multiplier == null ? null : floats(multiplier);
    this.ranges = ranges;
    this.settings = settings;
    this.reciprocal = reciprocal;
    this.device = device;
  }

  private static float[] floats(Tensor tensor) {
    Encoding type = tensor.dtype().encoding().orElseThrow();
    float[] values = new float[Math.toIntExact(tensor.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = Numbers.get(type, tensor.data(), i);
    }
    return values;
  }

  @Override
  public long outFeatures() {
    return linear.outFeatures();
  }

  @Override
  public long inFeatures() {
    return linear.inFeatures();
  }

  @Override
  public String kernel(long m) {
    return linear.kernel(m) + "+observed";
  }

  /** As the calibrated layer will have it. */
  @Override
  public Compute compute() {
    return settings.encoding() == Encoding.I8 ? Compute.I8_STATIC : Compute.F8;
  }

  @Override
  public void forward(
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      long ldOther) {
    long n = outFeatures();
    int k = Math.toIntExact(inFeatures());
    LinearCheck.linear(n, k, x, xType, ldx, m, y, yType, ldy);
    LinearCheck.fused(n, k, m, null, null, epilogue, other, yType, ldOther);
    if (m * Math.max(n, k) > Integer.MAX_VALUE / 8) {
      throw new GatunException("calibration: found " + m + " rows, expected smaller batches");
    }
    float[] input = new float[Math.toIntExact(m * k)];
    for (int i = 0; i < input.length; i++) {
      float v = Numbers.get(xType, x, (long) (i / k) * ldx + i % k);
      input[i] = multiplier == null ? v : HalfFloat.round(xType, v * multiplier[i % k]);
    }
    Rounding rounding = new Rounding(settings.encoding(), ranges.input(input, xType), reciprocal);
    try (Arena arena = Arena.ofShared()) {
      MemorySegment given = arena.allocate(Math.max(4, 4L * input.length), 64);
      for (int i = 0; i < input.length; i++) {
        Numbers.put(xType, given, i, input[i]);
      }
      MemorySegment rounded = arena.allocate(Math.max(4, 4L * input.length), 64);
      device.backend().round(rounding, given, xType, k, m, k, null, rounded, Encoding.F32, k, 0);
      MemorySegment sums = arena.allocate(Math.max(4, 4 * m * n), 64);
      linear.forward(rounded, m, sums);
      float[] output = new float[Math.toIntExact(m * n)];
      for (int i = 0; i < output.length; i++) {
        output[i] = HalfFloat.round(yType, Numbers.get(Encoding.F32, sums, i));
      }
      float scale = ranges.output(output, yType);
      Rounding after = new Rounding(settings.encoding(), scale, reciprocal);
      for (int i = 0; i < output.length; i++) {
        double sum = settings.roundOutputs() ? after.round(yType, output[i]) : output[i];
        long at = i / n;
        double and = other == null ? 0 : Numbers.get(yType, other, at * ldOther + i % n);
        Numbers.put(yType, y, at * ldy + i % n, Activations.apply(epilogue, sum, and));
      }
    }
  }

  @Override
  public void close() {
    if (settings.method() == Calibration.Method.OUTPUT_ERROR && !closed) {
      ranges.choose(linear, reciprocal, device.backend());
    }
    closed = true;
    linear.close();
  }
}
