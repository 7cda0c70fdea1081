package dev.gatun.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import dev.gatun.checkpoint.OutputFile;
import dev.gatun.quantize.LayerReport;
import dev.gatun.quantize.Report;
import dev.gatun.quantize.ReportChart;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.ServiceLoader;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/** {@code --report} and {@code --chart}: what is kept of a run beside its output. */
public final class ReportOptions {
  private static final ObjectMapper JSON =
      new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  @Option(
      names = "--report",
      paramLabel = "JSON",
      description = "Write what --json prints to this file too.")
  private @Nullable Path report;

  @Option(
      names = "--chart",
      paramLabel = "PNG",
      description = "Draw signal to noise and bits of every layer into this file.")
  private @Nullable Path chart;

  /** Made by picocli or by a command's field. */
  public ReportOptions() {}

  private static Optional<ReportChart> charts() {
    return ServiceLoader.load(ReportChart.class, ReportOptions.class.getClassLoader()).findFirst();
  }

  /** Refuses a chart that nobody draws, before anything is done. */
  void check(CommonOptions common) {
    if (chart != null && charts().isEmpty()) {
      throw common.usage(
          "--chart: found nothing on the class path that draws, expected dev.gatun:gatun-bench");
    }
  }

  void write(Map<String, Object> json, Report of) {
    write(json, List.of(of));
  }

  /** Of several reports, the layers of all are in one chart. */
  void write(Map<String, Object> json, Collection<Report> of) {
    if (report != null) {
      try {
        String text = JSON.writeValueAsString(json) + "\n";
        write(report, text.getBytes(StandardCharsets.UTF_8));
      } catch (JsonProcessingException e) {
        throw new IllegalStateException(e);
      }
    }
    if (chart != null) {
      List<LayerReport> layers = new ArrayList<>();
      List<Path> files = new ArrayList<>();
      of.forEach(
          one -> {
            layers.addAll(one.layers());
            files.addAll(one.files());
          });
      long before = of.stream().mapToLong(Report::bytesBefore).sum();
      long after = of.stream().mapToLong(Report::bytesAfter).sum();
      Report all = new Report(layers, layers.size(), 0, before, after, files);
      write(chart, charts().orElseThrow().png(all));
    }
  }

  private static void write(Path path, byte[] bytes) {
    try (OutputFile file = OutputFile.create(path)) {
      file.write(0, MemorySegment.ofArray(bytes));
      file.commit();
    }
  }
}
