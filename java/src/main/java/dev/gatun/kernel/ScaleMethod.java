package dev.gatun.kernel;

import dev.gatun.GatunException;
import java.util.List;
import java.util.Locale;

/**
 * How the scales of a weight (and its offsets, where the layout has them) are chosen.
 *
 * @param kind the method
 * @param percentile of {@link Kind#PERCENTILE}: more than 50, at most 100; else 100
 */
public record ScaleMethod(Kind kind, double percentile) {
  /** The methods. */
  public enum Kind {
    /**
     * As the format's own library does it, to the last bit: the largest magnitude gets the largest
     * code; with offsets, the smallest and the largest number get the smallest and the largest
     * code.
     */
    ABSMAX,
    /**
     * The same with a percentile of the magnitudes instead of the largest, what lies above is
     * clamped; with offsets, with the percentiles 100 - p and p of the numbers. Percentiles are
     * interpolated as numpy's default does it.
     */
    PERCENTILE,
    /** The scale, and offset, of the smallest squared error that a search finds. */
    MSE,
    /**
     * Half-quadratic quantization: offsets that give most weights a small error and few a large
     * one, as quanto's HqqOptimizer finds them (norm 0.7, beta 10, kappa 1.01, 20 rounds). For
     * layouts with float offsets.
     */
    HQQ
  }

  /** As the format's own library does it. */
  public static final ScaleMethod ABSMAX = new ScaleMethod(Kind.ABSMAX, 100);

  /** The smallest squared error. */
  public static final ScaleMethod MSE = new ScaleMethod(Kind.MSE, 100);

  /** Half-quadratic quantization. */
  public static final ScaleMethod HQQ = new ScaleMethod(Kind.HQQ, 100);

  private static final String EXPECTED = "absmax, percentile=P, mse or hqq";

  /** Checks the percentile. */
  public ScaleMethod {
    if (!(percentile > 50 && percentile <= 100)) {
      throw new GatunException(
          "scale: found percentile " + percentile + ", expected more than 50 and at most 100");
    }
  }

  /** A percentile of the magnitudes: 99.9. */
  public static ScaleMethod percentile(double percentile) {
    return new ScaleMethod(Kind.PERCENTILE, percentile);
  }

  /**
   * The method of a name: {@code absmax} (quanto's name for it with offsets is {@code max}), {@code
   * percentile=99.9}, {@code mse}, {@code hqq}.
   *
   * @throws GatunException when there is none
   */
  public static ScaleMethod of(String name) {
    List<String> parts = List.of(name.split("=", 2));
    if (parts.size() == 2 && parts.get(0).equals("percentile")) {
      try {
        return percentile(Double.parseDouble(parts.get(1)));
      } catch (NumberFormatException e) {
        throw new GatunException(
            "scale: found percentile '" + parts.get(1) + "', expected a number", e);
      }
    }
    return switch (name) {
      case "absmax", "max" -> ABSMAX;
      case "mse" -> MSE;
      case "hqq" -> HQQ;
      default -> throw new GatunException("scale: found '" + name + "', expected " + EXPECTED);
    };
  }

  /** {@code percentile=99.9}. */
  public String text() {
    String name = kind.name().toLowerCase(Locale.ROOT);
    return kind == Kind.PERCENTILE ? name + "=" + percentile : name;
  }
}
