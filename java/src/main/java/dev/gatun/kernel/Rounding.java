package dev.gatun.kernel;

import dev.gatun.GatunException;
import java.util.Locale;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** How a number between two codes becomes one of them. */
public enum Rounding {
  /** The nearer one; in the middle, the one that the format's library takes. */
  NEAREST,
  /**
   * The upper one with the probability that makes the mean right: unbiased, and the same for the
   * same seed.
   */
  STOCHASTIC;

  /** {@code nearest}. */
  public String text() {
    return name().toLowerCase(Locale.ROOT);
  }

  /**
   * The rounding of a name.
   *
   * @throws GatunException when there is none
   */
  public static Rounding of(String name) {
    return Stream.of(values())
        .filter(rounding -> rounding.text().equals(name))
        .findFirst()
        .orElseThrow(
            () ->
                new GatunException(
                    "rounding: found '"
                        + name
                        + "', expected one of "
                        + Stream.of(values())
                            .map(Rounding::text)
                            .collect(Collectors.joining(", "))));
  }
}
