package dev.gatun.kernel.codec;

import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/** The definition of what follows the sums of {@code linear}: in doubles, rounded by nobody. */
public final class Activations {
  private static final double SQRT_HALF = Math.sqrt(0.5);
  private static final double SQRT_2_OVER_PI = Math.sqrt(2 / Math.PI);
  private static final double SQRT_PI = Math.sqrt(Math.PI);

  /** Below it erf's series converges fast, from it on erfc's continued fraction does. */
  private static final double MIDDLE = 2;

  /** Steps of the fraction that leave an error below 1e-15 from {@link #MIDDLE} on. */
  private static final int STEPS = 64;

  private Activations() {}

  /** {@code combine(activation(sum), other)}; {@code other} does not matter without a combine. */
  public static double apply(Epilogue epilogue, double sum, double other) {
    double value = activate(epilogue.activation(), sum);
    return switch (epilogue.combine()) {
      case NONE -> value;
      case ADD -> value + other;
      case MULTIPLY -> value * other;
    };
  }

  /**
   * Applies an epilogue to sums in a pass of its own: where something had to be done with them
   * first.
   *
   * @param sums M × N of {@code type}, rows {@code ldSums} elements apart
   * @param other what is combined with, of the same type; it may be y itself
   */
  public static void apply(
      Epilogue epilogue,
      MemorySegment sums,
      long ldSums,
      long m,
      long n,
      MemorySegment y,
      Encoding type,
      long ldy,
      @Nullable MemorySegment other,
      long ldOther) {
    for (long i = 0; i < m; i++) {
      for (long j = 0; j < n; j++) {
        double sum = Numbers.get(type, sums, i * ldSums + j);
        double and = other == null ? 0 : Numbers.get(type, other, i * ldOther + j);
        Numbers.put(type, y, i * ldy + j, apply(epilogue, sum, and));
      }
    }
  }

  /** The activation of one number. Minus infinity becomes NaN, as the formulas have it. */
  public static double activate(Epilogue.Activation activation, double v) {
    return switch (activation) {
      case NONE -> v;
      case GELU -> v * erfc(-v * SQRT_HALF) / 2; // 1 + erf(z) = erfc(-z), without cancellation
      case GELU_TANH -> v * (1 + Math.tanh(SQRT_2_OVER_PI * (v + 0.044715 * v * v * v))) / 2;
      case SILU -> v / (1 + Math.exp(-v));
    };
  }

  /** The complementary error function, {@code 1 - erf(x)}, to 1e-13 of its size. */
  static double erfc(double x) {
    if (x <= -MIDDLE) {
      return 2 - erfc(-x);
    }
    double square = Math.exp(-x * x);
    if (x >= MIDDLE) {
      // erfc x = e^(-x²) / √π · 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + …
      double fraction = x;
      for (int i = STEPS; i > 0; i--) {
        fraction = x + i / 2.0 / fraction;
      }
      return square / SQRT_PI / fraction;
    }
    // erf x = 2/√π · e^(-x²) · Σ 2^i x^(2i+1) / (1 · 3 · … · (2i+1)), all terms of one sign
    double term = x;
    double sum = x;
    for (int i = 1; Math.abs(term) > 1e-18 * Math.abs(sum); i++) {
      term *= 2 * x * x / (2 * i + 1);
      sum += term;
    }
    return 1 - 2 / SQRT_PI * square * sum;
  }
}
