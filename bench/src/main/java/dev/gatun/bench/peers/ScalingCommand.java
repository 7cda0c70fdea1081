package dev.gatun.bench.peers;

import dev.gatun.cli.Command;
import dev.gatun.cli.CommonOptions;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;

/** {@code gatun bench scaling}: what more threads and more callers are worth. */
@CommandLine.Command(
    name = "scaling",
    description = {
      "Measure layers of the native backend on one and on all threads, one caller and two that share the pool, and the"
          + " processor time that waiting threads take.",
      "The speedup of a loop that only multiplies in registers shows what the machine offers."
    })
public final class ScalingCommand implements Command {
  @Mixin private CommonOptions common = new CommonOptions();

  @Mixin
  private LayerOptions options =
      new LayerOptions(List.of("int4-g32", "int8-row", "nf4", "f32"), List.of(1, 64, 512));

  /** Made by the service loader. */
  public ScalingCommand() {}

  @Override
  public Optional<String> parent() {
    return Optional.of("bench");
  }

  @Override
  public Integer call() {
    LayerOptions.Layers layers = options.layers(common);
    int n = layers.n();
    int k = layers.k();
    for (Work work : layers.works()) {
      if (work.group() > 0 && k % work.group() != 0) {
        throw common.usage("--shape: found K = " + k + ", expected a multiple of " + work.group());
      }
    }
    List<Scaling.Row> measured = new ArrayList<>();
    double idle;
    try (Scaling scaling = new Scaling(layers.threads(), layers.seconds())) {
      for (Work work : layers.works()) {
        common.err().println("gatun: " + work.label());
        measured.addAll(scaling.measure(new RandomLayer(work, n, k), layers.rows()));
      }
      common.err().println("gatun: nobody calls");
      idle = scaling.idle(new RandomLayer(layers.works().getFirst(), n, k));
    }
    if (common.json()) {
      Map<String, @Nullable Object> json = new LinkedHashMap<>();
      json.put("threads", layers.threads());
      json.put("n", n);
      json.put("k", k);
      json.put("results", measured.stream().map(Scaling.Row::toJson).toList());
      json.put("idleCpuMsPerSecond", idle);
      common.printJson(json);
    } else {
      print(measured, layers, idle);
    }
    return 0;
  }

  private void print(List<Scaling.Row> measured, LayerOptions.Layers layers, double idle) {
    line("%d threads, N = %d, K = %d", layers.threads(), layers.n(), layers.k());
    line("");
    line(
        "%-13s %5s  %10s %10s %8s %8s  %10s %10s %7s",
        "work", "M", "1 thread", "all, ms", "speedup", "of peak", "calls/s", "2 callers", "loss");
    for (Scaling.Row row : measured) {
      line(
          "%-13s %5d  %10.3f %10.3f %8.2f %8.2f  %10.1f %10.1f %6.1f%%",
          row.work().label(),
          row.m(),
          row.one(),
          row.all(),
          row.speedup(),
          row.peakScaling(),
          row.alone(),
          row.together(),
          row.loss());
    }
    line("");
    line("of peak: the speedup of a loop that only multiplies in registers.");
    line("processor time of a second in which nobody calls: %.1f ms", idle);
    common.out().flush();
  }

  private void line(String format, @Nullable Object... values) {
    common.out().println(String.format(Locale.ROOT, format, values));
  }
}
