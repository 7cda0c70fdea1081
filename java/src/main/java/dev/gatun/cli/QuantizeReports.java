package dev.gatun.cli;

import dev.gatun.quantize.AutoMixed;
import dev.gatun.quantize.LayerReport;
import dev.gatun.quantize.Report;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/** What {@code quantize} and {@code convert} print when they are done. */
final class QuantizeReports {
  private QuantizeReports() {}

  static void print(CommonOptions common, String format, Report report) {
    if (common.json()) {
      common.printJson(json(format, report));
      return;
    }
    printTable(common, report);
    printSummary(common, format, report);
  }

  /** What was chosen for each layer, and why. */
  static void print(CommonOptions common, AutoMixed.Result chosen, Report report) {
    if (common.json()) {
      common.printJson(json(chosen, report));
      return;
    }
    TextTable table = new TextTable("LAYER", "FORMAT", ">BITS", ">SNR dB", "WHY");
    for (AutoMixed.Choice choice : chosen.choices()) {
      table.row(
          choice.layer(),
          choice.chosen().format(),
          Units.decimals(choice.chosen().bits(), 3),
          Units.decimals(choice.chosen().snrDb(), 2),
          choice.why());
    }
    table.print(common.out());
    common.out().println("average " + Units.decimals(chosen.bits(), 3) + " bits a weight");
    printTable(common, report);
    printSummary(common, formats(report), report);
  }

  static Map<String, Object> json(AutoMixed.Result chosen, Report report) {
    Map<String, Object> json = json(formats(report), report);
    json.put("bitsPerWeight", chosen.bits());
    json.put("choices", chosen.choices().stream().map(QuantizeReports::json).toList());
    return json;
  }

  private static Map<String, Object> json(AutoMixed.Choice choice) {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("name", choice.layer());
    json.put("format", choice.chosen().format());
    json.put("bits", choice.chosen().bits());
    json.put("snrDb", finite(choice.chosen().snrDb()));
    json.put("why", choice.why());
    json.put("candidates", choice.measured().stream().map(QuantizeReports::json).toList());
    return json;
  }

  private static Map<String, Object> json(AutoMixed.Measured measured) {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("format", measured.format());
    json.put("bits", measured.bits());
    json.put("relativeError", Math.sqrt(measured.error()));
    json.put("snrDb", finite(measured.snrDb()));
    return json;
  }

  /** The components of a pipeline. */
  static void print(CommonOptions common, Path output, Map<String, Report> reports) {
    if (common.json()) {
      common.printJson(json(output, reports));
      return;
    }
    reports.forEach(
        (name, report) -> {
          common.out().println(name + ":");
          printTable(common, report);
          printSummary(common, formats(report), report);
        });
    common.out().println(output + ": " + reports.size() + " components quantized");
  }

  static Map<String, Object> json(Path output, Map<String, Report> reports) {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("directory", output.toString());
    Map<String, Object> components = new LinkedHashMap<>();
    reports.forEach((name, report) -> components.put(name, json(formats(report), report)));
    json.put("components", components);
    return json;
  }

  private static String formats(Report report) {
    return report.layers().stream()
        .map(LayerReport::format)
        .distinct()
        .collect(Collectors.joining(" and "));
  }

  private static void printTable(CommonOptions common, Report report) {
    TextTable table =
        new TextTable(
            "LAYER",
            "FORMAT",
            ">N",
            ">K",
            ">BEFORE",
            ">AFTER",
            "HOW",
            ">ERROR",
            ">SNR dB",
            ">MAX ERROR");
    for (LayerReport layer : report.layers()) {
      table.row(
          layer.layer(),
          layer.format(),
          layer.rows(),
          layer.columns(),
          layer.bytesBefore(),
          layer.bytesAfter(),
          Words.of(layer.how()),
          Units.significant(layer.relativeError()),
          Units.decimals(layer.snrDb(), 2),
          Units.significant(layer.maxError()));
    }
    table.print(common.out());
  }

  private static void printSummary(CommonOptions common, String format, Report report) {
    common
        .out()
        .println(
            report.files().getFirst()
                + ": "
                + report.converted()
                + " layers as "
                + format
                + ", "
                + report.copied()
                + " tensors copied, "
                + Units.bytes(report.bytesBefore())
                + " -> "
                + Units.bytes(report.bytesAfter()));
  }

  static Map<String, Object> json(String format, Report report) {
    List<Map<String, Object>> layers = report.layers().stream().map(QuantizeReports::json).toList();
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("format", format);
    json.put("files", report.files().stream().map(Path::toString).toList());
    json.put("bytesBefore", report.bytesBefore());
    json.put("bytesAfter", report.bytesAfter());
    json.put("copied", report.copied());
    json.put("layers", layers);
    return json;
  }

  private static Map<String, Object> json(LayerReport layer) {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("name", layer.layer());
    json.put("format", layer.format());
    json.put("n", layer.rows());
    json.put("k", layer.columns());
    json.put("bytesBefore", layer.bytesBefore());
    json.put("bytesAfter", layer.bytesAfter());
    json.put("how", Words.of(layer.how()));
    json.put("relativeError", finite(layer.relativeError()));
    json.put("snrDb", finite(layer.snrDb()));
    json.put("maxError", finite(layer.maxError()));
    return json;
  }

  /** JSON has no infinities. */
  private static @Nullable Double finite(double value) {
    return Double.isFinite(value) ? value : null;
  }
}
