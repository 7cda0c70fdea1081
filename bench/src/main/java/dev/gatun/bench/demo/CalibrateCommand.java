package dev.gatun.bench.demo;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.cli.Command;
import dev.gatun.cli.CommonOptions;
import dev.gatun.cli.DeviceOptions;
import dev.gatun.quantize.Calibration;
import java.nio.file.Path;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code gatun calibrate}: static activations for a real model. */
@CommandLine.Command(
    name = "calibrate",
    description = {
      "Find the scales of static activations for all-MiniLM-L6-v2 from real sentences, write them into int8 and FP8 checkpoints,"
          + " and run those without looking at x.",
      "Exit code 1 when the mean cosine with the original's embeddings is more than 0.005 below that of quantized weights alone,"
          + " for the better int8 or FP8 checkpoint."
    })
public final class CalibrateCommand implements Command {
  /** What rounding activations may cost of the mean cosine. */
  static final double BAR = 0.005;

  @Mixin private CommonOptions common = new CommonOptions();
  @Mixin private DeviceOptions device = new DeviceOptions();

  @Option(
      names = "--method",
      paramLabel = "M",
      defaultValue = "OUTPUT_ERROR",
      description =
          "How a scale comes from what was seen: ${COMPLETION-CANDIDATES}; MOMENTUM is quanto's (default: ${DEFAULT-VALUE}, the"
              + " one of many with which the layer's output strays least).")
  private Calibration.Method method = Calibration.Method.OUTPUT_ERROR;

  @Option(
      names = "--momentum",
      paramLabel = "X",
      description = "Of MOMENTUM, for outputs; 0 to 1 (default: ${DEFAULT-VALUE}).")
  private double momentum = Calibration.INPUT_MOMENTUM;

  @Option(
      names = "--percentile",
      paramLabel = "P",
      description = "Of PERCENTILE; above 0 to 100 (default: ${DEFAULT-VALUE}).")
  private double percentile = 99.99;

  @Option(
      names = "--smooth",
      paramLabel = "ALPHA",
      split = ",",
      defaultValue = "0.3,0.4,0.5,0.6,0.7,0.8,0.9",
      description =
          "Of SmoothQuant, 0 to 1: outliers of x are moved into the weights of a ComfyUI int8 checkpoint with pre_quant_scale,"
              + " in each layer with the best of these (default: ${DEFAULT-VALUE}).")
  private List<Double> smooth = List.of();

  @Option(
      names = {"-o", "--output"},
      paramLabel = "DIR",
      description = "Keep the calibrated checkpoints in directories below this one.")
  private @Nullable Path output;

  /** Made by the service loader. */
  public CalibrateCommand() {}

  @Override
  public Integer call() {
    if (!(momentum >= 0 && momentum <= 1)) {
      throw common.usage("--momentum: found " + momentum + ", expected 0 to 1");
    }
    if (!(percentile > 0 && percentile <= 100)) {
      throw common.usage("--percentile: found " + percentile + ", expected above 0 to 100");
    }
    if (!smooth.stream().allMatch(alpha -> alpha >= 0 && alpha <= 1)) {
      throw common.usage("--smooth: found " + smooth + ", expected 0 to 1");
    }
    Calibrator.Options options =
        new Calibrator.Options(
            method, momentum, percentile, List.copyOf(smooth), Optional.ofNullable(output));
    List<Calibrator.Row> rows;
    try (Device on = device.open()) {
      rows = Calibrator.run(options, on, line -> common.err().println("gatun: " + line));
    }
    if (common.json()) {
      common.printJson(rows.stream().map(CalibrateCommand::toJson).toList());
    } else {
      print(rows);
    }
    for (String activations : List.of(Calibrator.INT8, Calibrator.FP8)) {
      Calibrator.Row best = best(rows, activations);
      if (!passes(best)) {
        throw new GatunException(
            String.format(
                Locale.ROOT,
                "calibrate: %s, %s: found %.6f less mean cosine than with weights alone, expected at most %s",
                best.format(),
                best.activations(),
                best.loss(),
                BAR));
      }
    }
    return 0;
  }

  /** The row of these activations that loses least; one whose loss is no number comes last. */
  static Calibrator.Row best(List<Calibrator.Row> rows, String activations) {
    return rows.stream()
        .filter(row -> row.activations().startsWith(activations))
        .min(Comparator.comparingDouble(Calibrator.Row::loss))
        .orElseThrow();
  }

  /** NaN does not pass. */
  static boolean passes(Calibrator.Row row) {
    return row.loss() <= BAR;
  }

  private static ObjectNode toJson(Calibrator.Row row) {
    return JsonNodeFactory.instance
        .objectNode()
        .put("format", row.format())
        .put("activations", row.activations())
        .put("weightOnlyMeanCosine", row.weightOnly().mean())
        .put("weightOnlyWorstCosine", row.weightOnly().worst())
        .put("meanCosine", row.calibrated().mean())
        .put("worstCosine", row.calibrated().worst())
        .put("kernel", row.kernel());
  }

  private void print(List<Calibrator.Row> rows) {
    String format = "%-12s %-26s %10s %10s %10s %10s   %s%n";
    common
        .out()
        .printf(
            Locale.ROOT,
            format,
            "weights",
            "activations",
            "mean",
            "worst",
            "alone",
            "alone",
            "kernel of the widest layer");
    for (Calibrator.Row row : rows) {
      common
          .out()
          .printf(
              Locale.ROOT,
              format,
              row.format(),
              row.activations(),
              cosine(row.calibrated().mean()),
              cosine(row.calibrated().worst()),
              cosine(row.weightOnly().mean()),
              cosine(row.weightOnly().worst()),
              row.kernel());
    }
  }

  private static String cosine(double value) {
    return String.format(Locale.ROOT, "%.6f", value);
  }
}
