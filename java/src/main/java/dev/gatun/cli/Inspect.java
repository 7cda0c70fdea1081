package dev.gatun.cli;

import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import java.io.IOException;
import java.io.PrintWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Parameters;

/** {@code gatun inspect}: what a checkpoint holds. */
@CommandLine.Command(
    name = "inspect",
    description =
        "Show a checkpoint's tensors, layouts, bits per weight, sizes and metadata; explain unknown keys.")
public final class Inspect implements Command {
  @Mixin private CommonOptions common = new CommonOptions();

  @Parameters(
      index = "0",
      paramLabel = "FILE|DIR",
      description = "A checkpoint, a shard index or their directory.")
  private Path input = Path.of("");

  /** For {@link java.util.ServiceLoader}. */
  public Inspect() {}

  @Override
  public Integer call() throws IOException {
    try (Checkpoint checkpoint = Checkpoint.open(input)) {
      if (common.json()) {
        common.printJson(json(checkpoint));
      } else {
        print(checkpoint, common.out());
      }
    }
    return 0;
  }

  private static List<String> formats(Checkpoint checkpoint) {
    return checkpoint.layers().keySet().stream()
        .map(layer -> format(checkpoint, layer))
        .distinct()
        .toList();
  }

  private static String format(Checkpoint checkpoint, String layer) {
    return checkpoint.format(layer).map(CheckpointFormat::name).orElse("unknown");
  }

  private static long bytes(Checkpoint checkpoint) {
    return checkpoint.tensors().values().stream().mapToLong(t -> t.data().byteSize()).sum();
  }

  /** Weights of the quantized layers, and elements of the plain tensors. */
  private static long parameters(Checkpoint checkpoint) {
    return quantizedWeights(checkpoint)
        + checkpoint.plain().values().stream().mapToLong(Tensor::elements).sum();
  }

  private static long quantizedWeights(Checkpoint checkpoint) {
    return checkpoint.layers().values().stream()
        .mapToLong(w -> w.matrix().n() * w.matrix().k())
        .sum();
  }

  /** Of the quantized weights, scales and all; 0 when there are none. */
  private static double bitsPerWeight(Checkpoint checkpoint) {
    long bytes = checkpoint.layers().values().stream().mapToLong(QuantizedTensor::byteSize).sum();
    long weights = quantizedWeights(checkpoint);
    return weights == 0 ? 0 : 8.0 * bytes / weights;
  }

  private static Map<String, Object> json(Checkpoint checkpoint) throws IOException {
    Map<String, Object> root = new LinkedHashMap<>();
    root.put("path", checkpoint.path().toString());
    List<Object> files = new ArrayList<>();
    for (Path file : checkpoint.files()) {
      files.add(ordered("path", file.toString(), "bytes", Files.size(file)));
    }
    root.put("files", files);
    root.put("formats", formats(checkpoint));
    root.put("tensorBytes", bytes(checkpoint));
    root.put("parameters", parameters(checkpoint));
    root.put("bitsPerWeight", bitsPerWeight(checkpoint));
    root.put("metadata", checkpoint.metadata());
    root.put(
        "layers", checkpoint.layers().values().stream().map(w -> layer(checkpoint, w)).toList());
    root.put(
        "tensors", checkpoint.tensors().values().stream().map(t -> tensor(checkpoint, t)).toList());
    root.put("notes", checkpoint.notes());
    root.put("unsupported", checkpoint.unsupported());
    root.put("unknown", checkpoint.unclaimed());
    return root;
  }

  private static Map<String, Object> layer(Checkpoint checkpoint, QuantizedTensor w) {
    Map<String, Object> parts = new LinkedHashMap<>();
    w.parts().forEach((role, tensor) -> parts.put(role, tensor.name()));
    return ordered(
        "name", w.name(),
        "format", format(checkpoint, w.name()),
        "layout", w.layout().name(),
        "description", w.layout().describe(),
        "encoding", w.layout().encoding().name(),
        "shape", w.shape(),
        "dtype", w.dtype().name(),
        "bytes", w.byteSize(),
        "bitsPerWeight", w.bitsPerWeight(),
        "bias", checkpoint.bias(w.name()).isPresent(),
        "parts", parts);
  }

  private static Map<String, Object> tensor(Checkpoint checkpoint, Tensor t) {
    return ordered(
        "name", t.name(),
        "dtype", t.dtype().name(),
        "shape", t.shape(),
        "bytes", t.data().byteSize(),
        "plain", checkpoint.plain().containsKey(t.name()));
  }

  private static Map<String, Object> ordered(Object... keysAndValues) {
    Map<String, Object> map = new LinkedHashMap<>();
    for (int i = 0; i < keysAndValues.length; i += 2) {
      map.put((String) keysAndValues[i], keysAndValues[i + 1]);
    }
    return map;
  }

  private static void print(Checkpoint checkpoint, PrintWriter out) {
    List<String> formats = formats(checkpoint);
    out.println(
        checkpoint.path()
            + ": "
            + (formats.isEmpty() ? "not quantized" : String.join(", ", formats))
            + ", "
            + checkpoint.files().size()
            + (checkpoint.files().size() == 1 ? " file, " : " files, ")
            + checkpoint.tensors().size()
            + " tensors, "
            + parameters(checkpoint)
            + " parameters, "
            + Units.bytes(bytes(checkpoint)));
    checkpoint
        .metadata()
        .forEach((key, value) -> out.println("  " + shortened(key + ": " + value)));
    if (!checkpoint.layers().isEmpty()) {
      out.println();
      out.println(
          "Quantized layers ("
              + Units.decimals(bitsPerWeight(checkpoint), 2)
              + " bits per weight, scales and all)");
      TextTable table =
          new TextTable("LAYER", "SHAPE", "LAYOUT", ">BITS", ">BYTES", "AS", "STORED AS");
      for (QuantizedTensor w : checkpoint.layers().values()) {
        table.row(
            w.name(),
            Units.shape(w.shape()),
            w.layout().name(),
            Units.decimals(w.bitsPerWeight(), 2),
            w.byteSize(),
            w.dtype(),
            w.layout().describe());
      }
      table.print(out);
    }
    if (!checkpoint.plain().isEmpty()) {
      out.println();
      out.println("Plain tensors");
      TextTable table = new TextTable("TENSOR", "SHAPE", "TYPE", ">BYTES");
      checkpoint
          .plain()
          .values()
          .forEach(
              t -> table.row(t.name(), Units.shape(t.shape()), t.dtype(), t.data().byteSize()));
      table.print(out);
    }
    section(out, "Tensors that belong to the quantization", checkpoint.notes());
    section(out, "Layers that cannot be read", checkpoint.unsupported());
    section(out, "Unknown tensors", checkpoint.unclaimed());
  }

  private static void section(PrintWriter out, String title, Map<String, String> lines) {
    if (!lines.isEmpty()) {
      out.println();
      out.println(title);
      lines.forEach((name, line) -> out.println("  " + Units.line(name + ": " + line)));
    }
  }

  /** Metadata can be as long as a model has layers. */
  private static String shortened(String value) {
    String line = Units.line(value);
    return line.length() <= 120 ? line : line.substring(0, 119) + "…";
  }
}
