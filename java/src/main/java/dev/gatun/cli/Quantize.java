package dev.gatun.cli;

import dev.gatun.Device;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.quantize.NameFilter;
import dev.gatun.quantize.Quantizer;
import dev.gatun.quantize.Report;
import java.nio.file.Path;
import java.util.List;
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
  @Mixin private FormatOption format = new FormatOption();

  @Parameters(
      index = "0",
      paramLabel = "IN",
      description = "A checkpoint, a shard index or their directory.")
  private Path input = Path.of("");

  @Option(
      names = {"-o", "--output"},
      required = true,
      paramLabel = "OUT",
      description =
          "The file to write; what the format keeps beside it goes into the same directory.")
  private Path output = Path.of("");

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
    String name = format.name();
    try (Device on = device.open();
        Checkpoint checkpoint = Checkpoint.open(input)) {
      Outputs.notAnInput(output, checkpoint.files());
      Report report;
      try (Progress progress = new Progress("quantize", common.err())) {
        report =
            Quantizer.quantize(
                checkpoint,
                output,
                name,
                new NameFilter(include, exclude),
                on.operations(),
                progress);
      }
      QuantizeReports.print(common, name, report);
    }
    return 0;
  }
}
