package dev.gatun.cli;

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

  /** The components of a pipeline. */
  static void print(CommonOptions common, Path output, Map<String, Report> reports) {
    if (common.json()) {
      Map<String, Object> json = new LinkedHashMap<>();
      json.put("directory", output.toString());
      Map<String, Object> components = new LinkedHashMap<>();
      reports.forEach((name, report) -> components.put(name, json(formats(report), report)));
      json.put("components", components);
      common.printJson(json);
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

  private static Map<String, Object> json(String format, Report report) {
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
