package dev.gatun.cli;

import dev.gatun.Device;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.quantize.Quantizer;
import dev.gatun.quantize.Report;
import java.nio.file.Path;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code gatun convert}: from any layout that can be read to any that can be written. */
@CommandLine.Command(
    name = "convert",
    description = {
      "Write a quantized checkpoint in another format.",
      "Where the target can hold the same codes and scales they are laid out anew without loss; else a layer is"
          + " dequantized and quantized again. The report says which."
    })
public final class Convert implements Command {
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

  /** For {@link java.util.ServiceLoader}. */
  public Convert() {}

  @Override
  public Integer call() {
    String name = format.name();
    try (Device on = device.open();
        Checkpoint checkpoint = Checkpoint.open(input)) {
      Outputs.notAnInput(output, checkpoint.files());
      Report report;
      try (Progress progress = new Progress("convert", common.err())) {
        report = Quantizer.convert(checkpoint, output, name, on.operations(), progress);
      }
      QuantizeReports.print(common, name, report);
    }
    return 0;
  }
}
