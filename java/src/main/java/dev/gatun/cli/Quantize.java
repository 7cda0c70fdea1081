package dev.gatun.cli;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.MissingNode;
import dev.gatun.ComputePlan;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.kernel.Scaling;
import dev.gatun.quantize.ActivationScales;
import dev.gatun.quantize.AutoMixed;
import dev.gatun.quantize.Calibration;
import dev.gatun.quantize.MixedLimit;
import dev.gatun.quantize.NameFilter;
import dev.gatun.quantize.PipelineQuantizer;
import dev.gatun.quantize.QuantizePlan;
import dev.gatun.quantize.Quantizer;
import dev.gatun.quantize.Report;
import dev.gatun.quantize.Strategy;
import dev.gatun.quantize.config.PipelineQuantizationConfig;
import dev.gatun.quantize.config.QuantizationConfig;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code gatun quantize}: plain floats to a quantized checkpoint. */
@CommandLine.Command(
    name = "quantize",
    description =
        "Quantize a checkpoint of plain floats; prints bytes before and after and the error per layer.")
public final class Quantize implements Command {
  @Mixin private CommonOptions common = new CommonOptions();
  @Mixin private DeviceOptions device = new DeviceOptions();
  @Mixin private ScalingOptions scaling = new ScalingOptions();
  @Mixin private MixedOptions mixed = new MixedOptions();
  @Mixin private ReportOptions reports = new ReportOptions();

  @Option(
      names = "--format",
      paramLabel = "F",
      completionCandidates = FormatOption.Names.class,
      description = "One of ${COMPLETION-CANDIDATES}.")
  private @Nullable String format;

  @Option(
      names = "--config",
      paramLabel = "JSON",
      description =
          "A quantization configuration of bitsandbytes, quanto, torchao, ComfyUI (layer_quant_config) or, for a"
              + " pipeline's directory, diffusers; or a config.json that holds one.")
  private @Nullable Path config;

  @Option(
      names = "--dtype",
      paramLabel = "T",
      description =
          "float32, float16, bfloat16, int8, int4, int2, float8, float8_e5m2, float8_e4m3fnuz, nf4, fp4, nvfp4, mxfp8,"
              + " mxfp4 or original: with --strategy, the format.")
  private @Nullable String dtype;

  @Option(
      names = "--strategy",
      paramLabel = "S",
      description =
          "per_tensor, per_channel, per_group (group) or per_block (block), with --dtype; default: the type's usual one.")
  private @Nullable String strategy;

  @Parameters(
      index = "0",
      paramLabel = "IN",
      description =
          "A checkpoint, a shard index or their directory; with --config, a pipeline's directory too.")
  private Path input = Path.of("");

  @Option(
      names = {"-o", "--output"},
      required = true,
      paramLabel = "OUT",
      description =
          "The file to write; what the format keeps beside it goes into the same directory. Of a pipeline: a directory.")
  private Path output = Path.of("");

  @Option(
      names = "--calibration",
      paramLabel = "DIR",
      description =
          "A directory with the activation_scales.json of gatun calibrate: its scales of static activations go into the"
              + " layers that have them (ComfyUI's fp8 and int8, quanto).")
  private @Nullable Path calibration;

  @Option(
      names = "--compute",
      paramLabel = "PLAN",
      description =
          "What layers are multiplied in when the file is opened, kept in its metadata: f32, bf16, i8 … or"
              + " globs with one each, as *.down=i8,bf16. Default: what --config says, else f32.")
  private @Nullable String compute;

  @Option(
      names = "--convolutions",
      description =
          "Quantize weights of four dimensions too, to quanto's formats (qint8, qint4, qfloat8_e4m3fn …), which hold them.")
  private boolean convolutions;

  @Option(
      names = "--include",
      paramLabel = "GLOB",
      description =
          "Only layers of this plain name (* any characters, ? one); may be repeated. Default: all weights of two"
              + " dimensions but embeddings, norms and the output head.")
  private List<String> include = List.of();

  @Option(
      names = "--exclude",
      paramLabel = "GLOB",
      description = "Not layers of this plain name; may be repeated.")
  private List<String> exclude = List.of();

  /** For {@link java.util.ServiceLoader}. */
  public Quantize() {}

  @Override
  public Integer call() {
    long ways =
        Stream.of(format, config, dtype).filter(Objects::nonNull).count() + (mixed.isOn() ? 1 : 0);
    if (ways != 1) {
      throw common.usage(
          "found " + ways + " of --format, --config, --dtype and --auto-mixed, expected one");
    }
    mixed.check(common);
    reports.check(common);
    if (strategy != null && dtype == null) {
      throw common.usage("--strategy: found no --dtype, expected one beside it");
    }
    NameFilter filter = new NameFilter(include, exclude);
    Optional<Scaling> scales = scaling.scaling(common);
    JsonNode json = config == null ? MissingNode.getInstance() : QuantizationConfig.read(config);
    if (PipelineQuantizationConfig.matches(json)) {
      refuse("--convolutions", convolutions, "a pipeline's configuration");
      refuse("--calibration", calibration != null, "a pipeline's configuration");
      refuse("--compute", compute != null, "a pipeline's configuration");
      return pipeline(PipelineQuantizationConfig.of(json), filter, scales);
    }
    if (mixed.isOn()) {
      refuse("--convolutions", convolutions, "--auto-mixed");
      refuse("--calibration", calibration != null, "--auto-mixed");
      return mixed(filter, scales.orElse(Scaling.DEFAULT));
    }
    Map<String, Calibration.Scales> activations =
        calibration == null ? Map.of() : ActivationScales.read(calibration);
    QuantizePlan plan;
    String name;
    if (config != null) {
      QuantizationConfig how =
          QuantizationConfig.inModelConfig(json).orElseGet(() -> QuantizationConfig.of(json));
      plan = QuantizePlan.of(how, filter);
      name = how.quantMethod();
    } else {
      name = format != null ? FormatOption.checked(format, common) : ofType();
      plan = QuantizePlan.of(name, filter);
      if (calibration != null && !ActivationScales.FORMATS.contains(name)) {
        throw new GatunException(
            "--calibration: found format "
                + name
                + ", expected one of "
                + String.join(", ", ActivationScales.FORMATS));
      }
    }
    if (convolutions) {
      plan = plan.withConvolutions();
    }
    if (scales.isPresent()) {
      plan = plan.with(scales.get());
    }
    if (compute != null) {
      plan = plan.with(ComputePlan.parse(compute));
    }
    try (Device on = device.open();
        Checkpoint checkpoint = Checkpoint.open(input)) {
      Outputs.notAnInput(output, checkpoint.files());
      Report report;
      try (Progress progress = new Progress("quantize", common.err())) {
        report =
            Quantizer.quantize(checkpoint, output, plan, on.operations(), on.threads(), progress);
      }
      calibrated(activations);
      QuantizeReports.print(common, name, report);
      reports.write(QuantizeReports.json(name, report), report);
    }
    return 0;
  }

  /** What would have no effect is not passed over in silence. */
  private void refuse(String option, boolean given, String beside) {
    if (given) {
      throw common.usage(option + ": found " + beside + ", expected one checkpoint and its format");
    }
  }

  /** Puts scales into the checkpoint that was written: those of layers that it has quantized. */
  private void calibrated(Map<String, Calibration.Scales> activations) {
    if (activations.isEmpty()) {
      return;
    }
    try (Checkpoint written = Checkpoint.open(output)) {
      Map<String, Calibration.Scales> known = new LinkedHashMap<>(activations);
      known.keySet().retainAll(written.layers().keySet());
      if (known.isEmpty()) {
        throw new GatunException(
            calibration + ": found scales of no layer of " + output + ", expected some");
      }
      ActivationScales.write(written, known, output);
    }
  }

  private int mixed(NameFilter filter, Scaling scales) {
    MixedLimit limit = mixed.limit(common);
    try (Device on = device.open();
        Checkpoint checkpoint = Checkpoint.open(input)) {
      Outputs.notAnInput(output, checkpoint.files());
      AutoMixed.Result chosen;
      try (Progress progress = new Progress("measure", common.err())) {
        chosen =
            AutoMixed.choose(
                checkpoint,
                filter,
                mixed.candidates(),
                limit,
                scales,
                on.operations(),
                on.threads(),
                progress);
      }
      Report report;
      try (Progress progress = new Progress("quantize", common.err())) {
        report =
            Quantizer.quantize(
                checkpoint,
                output,
                compute == null
                    ? chosen.plan(scales)
                    : chosen.plan(scales).with(ComputePlan.parse(compute)),
                on.operations(),
                on.threads(),
                progress);
      }
      QuantizeReports.print(common, chosen, report);
      reports.write(QuantizeReports.json(chosen, report), report);
    }
    return 0;
  }

  private String ofType() {
    try {
      return Strategy.format(
          Objects.requireNonNull(dtype), Optional.ofNullable(strategy).map(Strategy::of));
    } catch (GatunException e) {
      throw common.usage("--" + e.getMessage());
    }
  }

  private int pipeline(
      PipelineQuantizationConfig how, NameFilter filter, Optional<Scaling> scales) {
    if (!PipelineQuantizer.isPipeline(input)) {
      throw new GatunException(
          input + ": found no " + PipelineQuantizer.INDEX + ", expected a pipeline's directory");
    }
    try (Device on = device.open()) {
      Map<String, Report> components;
      try (Progress progress = new Progress("quantize", common.err())) {
        components =
            PipelineQuantizer.quantize(
                input, output, how, filter, scales, on.operations(), on.threads(), progress);
      }
      QuantizeReports.print(common, output, components);
      reports.write(QuantizeReports.json(output, components), components.values());
    }
    return 0;
  }
}
