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
import picocli.CommandLine.Option;

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

  @Option(
      names = "--work",
      split = ",",
      paramLabel = "W",
      defaultValue = "int4-g32,int8-row,nf4,f32",
      description = "Kinds of weights, as in bench peers (default: ${DEFAULT-VALUE}).")
  private List<String> works = List.of();

  @Option(
      names = "--m",
      split = ",",
      paramLabel = "M",
      defaultValue = "1,64,512",
      description = "Numbers of rows (default: ${DEFAULT-VALUE}).")
  private List<Integer> rows = List.of();

  @Option(
      names = "--shape",
      paramLabel = "NxK",
      defaultValue = "4096x4096",
      description = "Outputs and inputs (default: ${DEFAULT-VALUE}).")
  private String shape = "";

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "All threads (default: the cores that the JVM sees).")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(
      names = "--seconds",
      paramLabel = "S",
      description =
          "Time for one layer and number of rows, as much again for its callers (default:"
              + " ${DEFAULT-VALUE}).")
  private double seconds = 2;

  /** Made by the service loader. */
  public ScalingCommand() {}

  @Override
  public Optional<String> parent() {
    return Optional.of("bench");
  }

  @Override
  public Integer call() {
    Plans plans = new Plans(common);
    List<Work> chosen = works.stream().map(plans::work).distinct().toList();
    int[] size = plans.shape(shape);
    plans.rows(rows, size);
    plans.threads(threads);
    plans.seconds(seconds);
    for (Work work : chosen) {
      if (work.group() > 0 && size[1] % work.group() != 0) {
        throw common.usage(
            "--shape: found K = " + size[1] + ", expected a multiple of " + work.group());
      }
    }
    List<Scaling.Row> measured = new ArrayList<>();
    double idle;
    try (Scaling scaling = new Scaling(threads, seconds)) {
      for (Work work : chosen) {
        common.err().println("gatun: " + work.label());
        measured.addAll(scaling.measure(new RandomLayer(work, size[0], size[1]), rows));
      }
      common.err().println("gatun: nobody calls");
      idle = scaling.idle(new RandomLayer(chosen.getFirst(), size[0], size[1]));
    }
    if (common.json()) {
      Map<String, @Nullable Object> json = new LinkedHashMap<>();
      json.put("threads", threads);
      json.put("n", size[0]);
      json.put("k", size[1]);
      json.put("results", measured.stream().map(Scaling.Row::toJson).toList());
      json.put("idleCpuMsPerSecond", idle);
      common.printJson(json);
    } else {
      print(measured, size, idle);
    }
    return 0;
  }

  private void print(List<Scaling.Row> measured, int[] size, double idle) {
    line("%d threads, N = %d, K = %d", threads, size[0], size[1]);
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
