package dev.gatun.quantize;

import dev.gatun.GatunException;
import java.util.OptionalDouble;

/**
 * What an automatically mixed checkpoint must keep to: one of both.
 *
 * @param maxBits bits a weight, scales included, on the average over the layers
 * @param minSnrDb signal to noise of every layer
 */
public record MixedLimit(OptionalDouble maxBits, OptionalDouble minSnrDb) {
  /** Checks that there is one. */
  public MixedLimit {
    if (maxBits.isPresent() == minSnrDb.isPresent()) {
      throw new GatunException(
          "auto-mixed: found "
              + (maxBits.isPresent() ? "both max-bits and min-snr" : "neither max-bits nor min-snr")
              + ", expected one of them");
    }
    if (!(maxBits.orElse(1) > 0)) {
      throw new GatunException("max-bits: found " + maxBits.orElse(0) + ", expected more than 0");
    }
    if (!Double.isFinite(minSnrDb.orElse(0))) {
      throw new GatunException("min-snr: found " + minSnrDb.orElse(0) + ", expected a number");
    }
  }

  /** So many bits a weight on the average. */
  public static MixedLimit maxBits(double bits) {
    return new MixedLimit(OptionalDouble.of(bits), OptionalDouble.empty());
  }

  /** At least so many dB in every layer. */
  public static MixedLimit minSnr(double db) {
    return new MixedLimit(OptionalDouble.empty(), OptionalDouble.of(db));
  }
}
