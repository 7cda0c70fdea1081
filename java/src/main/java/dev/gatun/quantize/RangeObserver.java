package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.Rounding;
import dev.gatun.kernel.codec.HalfFloat;

/**
 * Sees a layer's activations, batch by batch, and says with what scale they are best rounded. One
 * thread at a time.
 */
abstract sealed class RangeObserver {
  /** Sees one batch: the numbers of {@code type} that are in {@code values}. */
  abstract void observe(float[] values, int count, Encoding type);

  /** The scale so far; 1 before the first batch and when only zeros were seen. */
  abstract float scale();

  static RangeObserver of(Calibration.Settings settings, Encoding encoding, double momentum) {
    return switch (settings.method()) {
      case MOMENTUM -> new Momentum(encoding, momentum);
      case ABSMAX -> new AbsMax(encoding);
      case PERCENTILE -> new Percentile(encoding, settings.percentile());
      case HISTOGRAM, OUTPUT_ERROR -> new LeastError(encoding);
    };
  }

  private static float absmax(float[] values, int count) {
    float largest = 0;
    for (int i = 0; i < count; i++) {
      largest = Math.max(largest, Math.abs(values[i]));
    }
    return largest;
  }

  private static float orOne(float scale) {
    return scale > 0 && Float.isFinite(scale) ? scale : 1;
  }

  /**
   * quanto's: {@code scale = momentum · scale + (1 - momentum) · absmax / largest} in the
   * activations' type; the first batch, and every one after a scale of exactly 1, replaces it.
   * Source: optimum/quanto/calibrate.py.
   */
  static final class Momentum extends RangeObserver {
    private final Encoding encoding;
    private final double momentum;
    private float scale = 1;

    Momentum(Encoding encoding, double momentum) {
      this.encoding = encoding;
      this.momentum = momentum;
    }

    @Override
    void observe(float[] values, int count, Encoding type) {
      float found = HalfFloat.round(type, absmax(values, count) / Rounding.largest(encoding));
      if (scale == 1) {
        scale = found;
        return;
      }
      float old = HalfFloat.round(type, (float) momentum * scale);
      float fresh = HalfFloat.round(type, found * (float) (1 - momentum));
      scale = HalfFloat.round(type, old + fresh);
    }

    @Override
    float scale() {
      return orOne(scale);
    }
  }

  /** The largest of all batches. */
  static final class AbsMax extends RangeObserver {
    private final Encoding encoding;
    private float largest;

    AbsMax(Encoding encoding) {
      this.encoding = encoding;
    }

    @Override
    void observe(float[] values, int count, Encoding type) {
      largest = Math.max(largest, absmax(values, count));
    }

    @Override
    float scale() {
      return orOne(largest / Rounding.largest(encoding));
    }
  }

  /** Clips what lies beyond a share of all magnitudes. */
  static final class Percentile extends RangeObserver {
    private final Histogram histogram = new Histogram();
    private final Encoding encoding;
    private final double percentile;

    Percentile(Encoding encoding, double percentile) {
      this.encoding = encoding;
      this.percentile = percentile;
    }

    @Override
    void observe(float[] values, int count, Encoding type) {
      histogram.add(values, count);
    }

    @Override
    float scale() {
      return orOne(histogram.quantile(percentile / 100) / Rounding.largest(encoding));
    }
  }

  /** Clips where the squared error of all magnitudes, rounded and clipped, is least. */
  static final class LeastError extends RangeObserver {
    private static final int CANDIDATES = 100;
    private final Histogram histogram = new Histogram();
    private final Encoding encoding;

    LeastError(Encoding encoding) {
      this.encoding = encoding;
    }

    @Override
    void observe(float[] values, int count, Encoding type) {
      histogram.add(values, count);
    }

    @Override
    float scale() {
      float best = 1;
      double least = Double.POSITIVE_INFINITY;
      for (int i = CANDIDATES; i > 0; i--) {
        float scale = histogram.largest() * ((float) i / CANDIDATES) / Rounding.largest(encoding);
        if (!(scale > 0) || !Float.isFinite(scale)) {
          break;
        }
        double error = histogram.squaredError(new Rounding(encoding, scale, false));
        if (error < least) {
          least = error;
          best = scale;
        }
      }
      return best;
    }
  }
}
