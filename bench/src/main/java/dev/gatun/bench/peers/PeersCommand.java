package dev.gatun.bench.peers;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import dev.gatun.bench.Outputs;
import dev.gatun.bench.Probe;
import dev.gatun.cli.Command;
import dev.gatun.cli.CommonOptions;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code gatun bench peers}: our layers beside other engines'. */
@CommandLine.Command(
    name = "peers",
    description = {
      "Measure linear layers beside other engines', in turns in one process, with the machine's own limits probed in between.",
      "Up to M = 8 the weights come from memory. Every figure is the best of its samples. Losing cases are printed too."
    })
public final class PeersCommand implements Command {
  @Mixin private CommonOptions common = new CommonOptions();

  @Option(
      names = {"-o", "--output"},
      paramLabel = "DIR",
      description =
          "Where gatun-peers.json and the charts are written (default: the current directory).")
  private Path output = Path.of(".");

  @Mixin private LayerOptions layers = new LayerOptions(Work.labels(), List.of(1, 8, 64, 512));

  @Option(
      names = "--cold",
      paramLabel = "MIB",
      description =
          "MiB that the copies of a weight take when it is to come from memory: more than the caches (default:"
              + " ${DEFAULT-VALUE}).")
  private int cold = 384;

  /** Made by the service loader. */
  public PeersCommand() {}

  @Override
  public Optional<String> parent() {
    return Optional.of("bench");
  }

  @Override
  public Integer call() throws IOException {
    Peers.Plan plan = plan();
    Path json = output.resolve("gatun-peers.json");
    Path roofline = output.resolve("gatun-peers-roofline.png");
    Path throughput = output.resolve("gatun-peers-throughput.png");
    Outputs.check(json);
    Peers.Result result = Peers.run(plan, line -> common.err().println("gatun: " + line));
    Map<String, @Nullable Object> document = toJson(result);
    Outputs.write(
        json,
        new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT).writeValueAsBytes(document));
    if (!result.measurements().isEmpty()) {
      Outputs.write(roofline, PeersCharts.roofline(result));
      Outputs.write(throughput, PeersCharts.throughput(result));
    }
    if (common.json()) {
      common.printJson(document);
    } else {
      print(result);
    }
    common.err().println("gatun: written: " + json + ", " + roofline + ", " + throughput);
    return 0;
  }

  private Peers.Plan plan() {
    LayerOptions.Layers asked = layers.layers(common);
    if (cold < 1 || cold > 1 << 14) {
      throw common.usage("--cold: found " + cold + ", expected 1 to 16384");
    }
    return new Peers.Plan(
        asked.works(),
        asked.rows(),
        asked.n(),
        asked.k(),
        asked.threads(),
        (long) cold << 20,
        asked.seconds());
  }

  private static Map<String, @Nullable Object> toJson(Peers.Result result) {
    Map<String, @Nullable Object> peaks = new LinkedHashMap<>();
    result
        .peaks()
        .forEach(
            (kind, peak) ->
                peaks.put(kind.name().toLowerCase(Locale.ROOT), peak > 0 ? peak : null));
    Map<String, @Nullable Object> json = new LinkedHashMap<>();
    json.put("threads", result.plan().threads());
    json.put("peakGflops", peaks);
    json.put("readGBps", result.readRate() > 0 ? result.readRate() : null);
    json.put("results", result.measurements().stream().map(Measurement::toJson).toList());
    json.put(
        "absent",
        result.absences().stream()
            .map(a -> Map.of("engine", a.engine(), "work", a.work().label(), "reason", a.reason()))
            .toList());
    return json;
  }

  private void print(Peers.Result result) {
    line(
        "%d threads, N = %d, K = %d",
        result.plan().threads(), result.plan().n(), result.plan().k());
    for (Map.Entry<Probe.Peak, Double> peak : result.peaks().entrySet()) {
      String name = result.peakNames().get(peak.getKey());
      line(
          "peak %-5s %s",
          peak.getKey(),
          peak.getValue() > 0
              ? String.format(Locale.ROOT, "%8.0f G/s (%s)", peak.getValue(), name)
              : "unknown: no instruction for it");
    }
    if (result.readRate() > 0) {
      line("memory     %8.1f GB/s read", result.readRate());
    }
    line("");
    line(
        "%-13s %5s  %-16s %9s %9s %7s %8s %7s  %8s  %s",
        "work", "M", "engine", "ms", "G/s", "% peak", "GB/s", "% read", "× peer", "kernel");
    for (Measurement m : result.measurements()) {
      line(
          "%-13s %5d  %-16s %9.3f %9.0f %7s %8.1f %7s  %8s  %s",
          m.work().label(),
          m.m(),
          m.engine(),
          m.ms(),
          m.gflops(),
          figure(m.peak() > 0 ? m.percentOfPeak() : Double.NaN, 0),
          m.weightGBps(),
          figure(m.percentOfBandwidth(), 0),
          figure(m.ratio(), 2),
          m.kernel());
    }
    line("");
    line("× peer: time of the best peer over this one's; above 1 is faster than every peer.");
    Map<String, List<String>> absent = new LinkedHashMap<>();
    for (Peers.Absence a : result.absences()) {
      absent
          .computeIfAbsent(a.engine() + ": " + a.reason(), reason -> new ArrayList<>())
          .add(a.work().label());
    }
    absent.forEach((reason, labels) -> line("absent (%s): %s", String.join(", ", labels), reason));
    common.out().flush();
  }

  private static String figure(double value, int digits) {
    return Double.isFinite(value) ? String.format(Locale.ROOT, "%." + digits + "f", value) : "–";
  }

  private void line(String format, @Nullable Object... values) {
    common.out().println(String.format(Locale.ROOT, format, values));
  }
}
