package dev.gatun.cli;

import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.quantize.Dequantizer;
import dev.gatun.quantize.Report;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code gatun dequantize}: a quantized checkpoint as plain floats. */
@CommandLine.Command(
    name = "dequantize",
    description =
        "Write a checkpoint's weights as plain floats, with the bytes that the format's own library gives.")
public final class Dequantize implements Command {
  /** The types that can be asked for. */
  enum FloatType {
    F32,
    F16,
    BF16
  }

  @Mixin private CommonOptions common = new CommonOptions();
  @Mixin private DeviceOptions device = new DeviceOptions();

  @Parameters(
      index = "0",
      paramLabel = "IN",
      description = "A checkpoint, a shard index or their directory.")
  private Path input = Path.of("");

  @Option(
      names = {"-o", "--output"},
      required = true,
      paramLabel = "OUT",
      description = "The safetensors file to write.")
  private Path output = Path.of("");

  @Option(
      names = "--dtype",
      paramLabel = "T",
      description =
          "${COMPLETION-CANDIDATES}; default: each weight in the type that its own library gives.")
  private @Nullable FloatType dtype;

  /** For {@link java.util.ServiceLoader}. */
  public Dequantize() {}

  @Override
  public Integer call() {
    try (Device on = device.open();
        Checkpoint checkpoint = Checkpoint.open(input)) {
      Outputs.notAnInput(output, checkpoint.files());
      Report report;
      try (Progress progress = new Progress("dequantize", common.err())) {
        report =
            Dequantizer.dequantize(
                checkpoint,
                output,
                Optional.ofNullable(dtype).map(t -> Encoding.valueOf(t.name())),
                on.operations(),
                progress);
      }
      if (common.json()) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("output", output.toString());
        json.put("dtype", dtype == null ? null : dtype.name());
        json.put("dequantized", report.converted());
        json.put("copied", report.copied());
        json.put("bytesBefore", report.bytesBefore());
        json.put("bytesAfter", report.bytesAfter());
        common.printJson(json);
      } else {
        common
            .out()
            .println(
                output
                    + ": "
                    + report.converted()
                    + " layers dequantized, "
                    + report.copied()
                    + " tensors copied, "
                    + Units.bytes(report.bytesBefore())
                    + " -> "
                    + Units.bytes(report.bytesAfter()));
      }
    }
    return 0;
  }
}
