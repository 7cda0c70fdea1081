package dev.gatun.kernel;

/**
 * Looks for the scale, and offset, of the smallest squared error of one block: tries shares of the
 * range, then least squares over the codes that the best of them gives. Works in plain arithmetic
 * on a sample of large blocks; whoever stores what is found compares it exactly.
 */
final class ScaleSearch {
  /** Numbers of a block that the search looks at. */
  private static final int SAMPLE = 1 << 16;

  /** Shares of the largest magnitude that become the largest code. */
  private static final double SMALLEST_SHARE = 0.3;

  private static final double STEP = 0.02;

  /** Codes that are no integers are far apart at the end: a longer range may hit them better. */
  private static final double LARGEST_SHARE = 1.5;

  /** What may be cut off a range at either end. */
  private static final double LARGEST_CUT = 0.4;

  private static final int LEAST_SQUARES_ROUNDS = 4;

  private final Matrix m;
  private final CodeValues values;
  private final ScaleBlock block;
  private final float[] sample;
  private ScaleFitter.Pair best;
  private double bestError = Double.POSITIVE_INFINITY;

  ScaleSearch(Matrix m, CodeValues values, ScaleBlock block) {
    this.m = m;
    this.values = values;
    this.block = block;
    this.sample = block.sample(SAMPLE);
    this.best = new ScaleFitter.Pair(0, 0);
  }

  /**
   * The best pair that is found, {@code before} included.
   *
   * @param range smallest and largest number and largest magnitude
   */
  ScaleFitter.Pair best(ScaleFitter.Pair before, float[] range) {
    offer(before);
    if (m.offsets().isPresent()) {
      ranges(range[0], range[1]);
    } else {
      double end = values.areIntegers() ? 1 : LARGEST_SHARE;
      for (double share = SMALLEST_SHARE; share <= end; share += STEP) {
        offer(new ScaleFitter.Pair(ScaleFitter.storable(m, before.scale() * share), 0));
      }
    }
    for (int round = 0; round < LEAST_SQUARES_ROUNDS && leastSquares(); round++) {}
    return best;
  }

  /** Cuts both ends by the same share, then goes on from the best with each end alone. */
  private void ranges(double low, double high) {
    double width = high - low;
    double left = 0;
    double right = 0;
    for (double cut = 0; cut < LARGEST_CUT; cut += STEP) {
      if (offer(low + cut * width, high - cut * width)) {
        left = right = cut;
      }
    }
    for (double step = 3 * STEP; step >= STEP; step -= STEP) {
      for (int sign = -1; sign <= 1; sign += 2) {
        if (offer(low + (left + sign * step) * width, high - right * width)) {
          left += sign * step;
        }
        if (offer(low + left * width, high - (right + sign * step) * width)) {
          right += sign * step;
        }
      }
    }
  }

  private boolean offer(double low, double high) {
    return high > low && offer(ScaleFitter.affine(m, values, low, high));
  }

  private boolean offer(ScaleFitter.Pair pair) {
    if (!(pair.scale() != 0 && Float.isFinite(pair.scale()) && Float.isFinite(pair.offset()))) {
      return false;
    }
    double error = error(pair);
    if (!(error < bestError)) {
      return false;
    }
    bestError = error;
    best = pair;
    return true;
  }

  /** Stops as soon as the best one is missed. */
  private double error(ScaleFitter.Pair pair) {
    ScaleFitter.Decoder decoder = ScaleFitter.Decoder.of(m, values, block, pair);
    float scale = decoder.scale() * decoder.after();
    float inverse = 1 / scale;
    float offset = decoder.offset();
    float zero = decoder.zero();
    double sum = 0;
    for (int from = 0; from < sample.length && sum < bestError; from += 64) {
      int end = Math.min(sample.length, from + 64);
      double part = 0;
      for (int i = from; i < end; i++) {
        float code = values.nearest((sample[i] - offset) * inverse + zero);
        double difference = (code - zero) * scale + offset - (double) sample[i];
        part += difference * difference;
      }
      sum += part;
    }
    return sum;
  }

  /** The scale, and offset, that fit best to the codes of the best pair so far. */
  private boolean leastSquares() {
    ScaleFitter.Decoder decoder = ScaleFitter.Decoder.of(m, values, block, best);
    double n = sample.length;
    double c = 0;
    double w = 0;
    double cc = 0;
    double cw = 0;
    for (float x : sample) {
      double code = values.nearest((float) decoder.place(x)) - (double) decoder.zero();
      c += code;
      w += x;
      cc += code * code;
      cw += code * x;
    }
    double global = m.globalScale();
    if (m.offsets().isEmpty()) {
      return cc > 0 && offer(new ScaleFitter.Pair(ScaleFitter.storable(m, cw / cc / global), 0));
    }
    double spread = cc - c * c / n;
    if (!(spread > 0)) {
      return false;
    }
    double scale = (cw - c * w / n) / spread;
    double offset = (w - scale * c) / n;
    double low = (values.smallest() - (double) decoder.zero()) * scale + offset;
    double high = (values.largest() - (double) decoder.zero()) * scale + offset;
    return offer(low, high);
  }
}
