package dev.gatun.cli;

import dev.gatun.layout.LayoutRegistry;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;

/** {@code gatun layouts}: the registry. */
@CommandLine.Command(
    name = "layouts",
    description = "List the registry: checkpoint format, layout, operation, backend, entry point.")
public final class Layouts implements Command {
  @Mixin private CommonOptions common = new CommonOptions();

  /** For {@link java.util.ServiceLoader}. */
  public Layouts() {}

  @Override
  public Integer call() {
    List<LayoutRegistry.Entry> entries = LayoutRegistry.get().entries();
    if (common.json()) {
      common.printJson(entries.stream().map(Layouts::json).toList());
      return 0;
    }
    TextTable table = new TextTable("FORMAT", "LAYOUT", "OPERATION", "ENTRY POINTS");
    for (List<LayoutRegistry.Entry> group : byOperation(entries)) {
      LayoutRegistry.Entry first = group.getFirst();
      table.row(
          first.checkpointFormat(),
          first.layout(),
          Words.of(first.operation()),
          String.join(", ", group.stream().map(LayoutRegistry.Entry::entryPoint).toList()));
    }
    table.print(common.out());
    return 0;
  }

  private static Iterable<List<LayoutRegistry.Entry>> byOperation(
      List<LayoutRegistry.Entry> entries) {
    Map<List<Object>, List<LayoutRegistry.Entry>> groups = new LinkedHashMap<>();
    for (LayoutRegistry.Entry e : entries) {
      groups.computeIfAbsent(List.of(e.layout(), e.operation()), key -> new ArrayList<>()).add(e);
    }
    return groups.values();
  }

  private static Map<String, Object> json(LayoutRegistry.Entry e) {
    Map<String, Object> row = new LinkedHashMap<>();
    row.put("checkpointFormat", e.checkpointFormat());
    row.put("layout", e.layout());
    row.put("description", e.description());
    row.put("operation", Words.of(e.operation()));
    row.put("backend", e.backend());
    row.put("entryPoint", e.entryPoint());
    return row;
  }
}
