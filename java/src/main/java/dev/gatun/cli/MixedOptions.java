package dev.gatun.cli;

import dev.gatun.GatunException;
import dev.gatun.quantize.AutoMixed;
import dev.gatun.quantize.MixedLimit;
import dev.gatun.quantize.Quantizer;
import java.util.List;
import java.util.OptionalDouble;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** {@code --auto-mixed}, {@code --max-bits}, {@code --min-snr} and {@code --candidates}. */
public final class MixedOptions {
  @Option(
      names = "--auto-mixed",
      description =
          "Measure every layer in each of some formats and choose one for each; with --max-bits or --min-snr.")
  private boolean autoMixed;

  @Option(
      names = "--max-bits",
      paramLabel = "B",
      description =
          "At most so many bits a weight, scales included, on the average over the layers.")
  private @Nullable Double maxBits;

  @Option(
      names = "--min-snr",
      paramLabel = "DB",
      description = "At least so many dB of signal to noise in every layer, with the fewest bits.")
  private @Nullable Double minSnr;

  @Option(
      names = "--candidates",
      paramLabel = "F",
      split = ",",
      description = "Formats to choose from. Default: qint2,qint4,qint8,original.")
  private @Nullable List<String> candidates;

  /** Made by picocli or by a command's field. */
  public MixedOptions() {}

  boolean isOn() {
    return autoMixed;
  }

  List<String> candidates() {
    return candidates == null ? AutoMixed.CANDIDATES : candidates;
  }

  /** Checks the options among themselves. */
  void check(CommonOptions common) {
    if (!autoMixed && (maxBits != null || minSnr != null || candidates != null)) {
      throw common.usage(
          "--max-bits, --min-snr, --candidates: found no --auto-mixed, expected it beside them");
    }
    for (String candidate : candidates()) {
      if (!Quantizer.formats().containsKey(candidate)) {
        throw common.usage(
            "--candidates: found '"
                + candidate
                + "', expected some of "
                + String.join(", ", Quantizer.formats().keySet()));
      }
    }
  }

  MixedLimit limit(CommonOptions common) {
    try {
      return new MixedLimit(optional(maxBits), optional(minSnr));
    } catch (GatunException e) {
      throw common.usage("--" + e.getMessage());
    }
  }

  private static OptionalDouble optional(@Nullable Double value) {
    return value == null ? OptionalDouble.empty() : OptionalDouble.of(value);
  }
}
