package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.ReadmeSection;
import dev.gatun.kernel.Operation;
import dev.gatun.layout.LayoutRegistry;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/**
 * Keeps the README's table of checkpoint formats: {@code -Dgatun.readme=write} writes it anew, else
 * a stale one fails.
 */
class ReadmeTableTest {
  /**
   * What each format was checked against: the library that wrote the golden files, or a formula.
   */
  private static final Map<String, String> CHECKED =
      Map.ofEntries(
          Map.entry("awq", "AutoAWQ 0.2.9"),
          Map.entry("bitsandbytes", "bitsandbytes 0.50.2"),
          Map.entry("comfyui", "comfy-kitchen"),
          Map.entry("compressed-tensors", "compressed-tensors"),
          Map.entry("fp8-block", "the formula"),
          Map.entry("gguf", "ggml 0.21.0"),
          Map.entry("gptq", "AutoGPTQ 0.8.0"),
          Map.entry("mlx", "the formula"),
          Map.entry("plain", "the casts"),
          Map.entry("quanto", "optimum-quanto 0.2.7"),
          Map.entry("torchao", "torchao 0.19.0"));

  private static String table() {
    List<LayoutRegistry.Entry> entries = LayoutRegistry.get().entries();
    StringBuilder table = new StringBuilder();
    table.append(
        "| format | layouts | read | dequantize | linear native | linear vector | write |"
            + " checked against |\n");
    table.append("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    Map<String, CheckpointFormat> formats = new TreeMap<>();
    Checkpoint.formats().forEach(format -> formats.put(format.name(), format));
    formats.forEach(
        (name, format) -> {
          List<LayoutRegistry.Entry> own =
              entries.stream().filter(e -> e.checkpointFormat().equals(name)).toList();
          if (own.isEmpty()) {
            return; // plain floats, which are no layout
          }
          table
              .append("| ")
              .append(name)
              .append(" | ")
              .append(
                  own.stream()
                      .map(e -> e.layout().substring(e.layout().indexOf('.') + 1))
                      .distinct()
                      .collect(Collectors.joining(", ")))
              .append(" | yes | ")
              .append(runs(own, Operation.DEQUANTIZE, "reference"))
              .append(" | ")
              .append(runs(own, Operation.LINEAR, "native"))
              .append(" | ")
              .append(runs(own, Operation.LINEAR, "vector"))
              .append(" | ")
              .append(
                  format.writes().isEmpty() ? "no" : String.join(", ", format.writes().keySet()))
              .append(" | ")
              .append(CHECKED.getOrDefault(name, "nothing"))
              .append(" |\n");
        });
    return table.toString();
  }

  private static String runs(List<LayoutRegistry.Entry> own, Operation operation, String backend) {
    long all = own.stream().map(LayoutRegistry.Entry::layout).distinct().count();
    long some =
        own.stream()
            .filter(e -> e.operation() == operation && e.backend().equals(backend))
            .map(LayoutRegistry.Entry::layout)
            .distinct()
            .count();
    return some == 0 ? "no" : some == all ? "yes" : some + " of " + all;
  }

  @Test
  void theTableInTheReadmeIsWhatTheRegistrySays() throws IOException {
    ReadmeSection.keep("formats", ReadmeTableTest.class, table());
  }

  @Test
  void everyFormatSaysWhatItWasCheckedAgainst() {
    assertThat(CHECKED.keySet())
        .containsExactlyInAnyOrderElementsOf(
            Checkpoint.formats().stream().map(CheckpointFormat::name).toList());
  }
}
