package dev.gatun.cli;

import dev.gatun.GatunException;
import dev.gatun.kernel.Rounding;
import dev.gatun.kernel.ScaleMethod;
import dev.gatun.kernel.Scaling;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** {@code --scale}, {@code --rounding} and {@code --seed}. */
public final class ScalingOptions {
  @Option(
      names = "--scale",
      paramLabel = "METHOD",
      description =
          "How scales are chosen: absmax (as the format's own library does; the default), percentile=99.9, mse"
              + " (smallest squared error), hqq (half-quadratic; for formats with offsets).")
  private @Nullable String scale;

  @Option(
      names = "--rounding",
      paramLabel = "R",
      description = "nearest (the default) or stochastic.")
  private @Nullable String rounding;

  @Option(
      names = "--seed",
      paramLabel = "N",
      description = "Of stochastic rounding: the same seed gives the same bytes. Default: 0.")
  private @Nullable Long seed;

  /** Made by picocli or by a command's field. */
  public ScalingOptions() {}

  /** What was asked for; empty when nothing was. */
  Optional<Scaling> scaling(CommonOptions common) {
    if (scale == null && rounding == null && seed == null) {
      return Optional.empty();
    }
    try {
      Rounding how = rounding == null ? Rounding.NEAREST : Rounding.of(rounding);
      if (seed != null && how != Rounding.STOCHASTIC) {
        throw common.usage("--seed: found no --rounding stochastic, expected it beside");
      }
      return Optional.of(
          new Scaling(
              scale == null ? ScaleMethod.ABSMAX : ScaleMethod.of(scale),
              how,
              seed == null ? 0 : seed));
    } catch (GatunException e) {
      throw common.usage("--" + e.getMessage());
    }
  }
}
