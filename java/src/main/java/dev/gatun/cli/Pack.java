package dev.gatun.cli;

import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.PackedFile;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code gatun pack}: a checkpoint's weights as the kernels want them, in a file beside it. */
@CommandLine.Command(
    name = "pack",
    description = {
      "Write a checkpoint's weights beside it as the native kernels want them, so that opening a layer only maps it.",
      "The file is not used any more once the checkpoint has changed."
    })
public final class Pack implements Command {
  @Mixin private CommonOptions common = new CommonOptions();

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "1 to 1024; default: the cores that the JVM sees.")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(
      names = "--check",
      description = "Read the file that is there and compare it with its checksums instead.")
  private boolean check;

  @Parameters(
      index = "0",
      paramLabel = "CHECKPOINT",
      description = "A checkpoint, a shard index or their directory.")
  private Path input = Path.of("");

  /** For {@link java.util.ServiceLoader}. */
  public Pack() {}

  @Override
  public Integer call() {
    if (threads < 1 || threads > 1024) {
      throw common.usage("--threads: found " + threads + ", expected 1 to 1024");
    }
    Path file = PackedFile.beside(input);
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("output", file.toString());
    try (Checkpoint checkpoint = Checkpoint.open(input)) {
      if (check) {
        try (PackedFile packed = PackedFile.open(file, checkpoint)) {
          packed.verify();
          json.put("verified", packed.layers());
          print(json, file + ": " + packed.layers().size() + " layers, as they were packed");
        }
        return 0;
      }
      try (Device device = Device.of("native", threads)) {
        PackedFile.Written written = PackedFile.write(checkpoint, device.backend(), file);
        if (written.packed().isEmpty()) {
          throw new GatunException(
              input + ": found no quantized layer that can be packed, expected one");
        }
        written.left().forEach((name, reason) -> common.err().println("gatun: " + reason));
        json.put("packed", written.packed());
        json.put("left", written.left());
        json.put("bytesBefore", written.bytesBefore());
        json.put("bytesAfter", written.bytesAfter());
        print(
            json,
            file
                + ": "
                + written.packed().size()
                + " layers packed, "
                + Units.bytes(written.bytesBefore())
                + " -> "
                + Units.bytes(written.bytesAfter()));
      }
    }
    return 0;
  }

  private void print(Map<String, Object> json, String line) {
    if (common.json()) {
      common.printJson(json);
    } else {
      common.out().println(line);
    }
  }
}
