package dev.gatun.bench.demo;

import dev.gatun.bench.Outputs;
import dev.gatun.cli.Command;
import dev.gatun.cli.CommonOptions;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code gatun demo}: a real model, quantized, run and compared. */
@CommandLine.Command(
    name = "demo",
    description = {
      "Quantize the real weights of all-MiniLM-L6-v2, run the whole model on every backend, and compare error and speed with"
          + " ONNX Runtime.",
      "Exit code 1 when a format strays further from the original than it may."
    })
public final class DemoCommand implements Command {
  private static final String CHART = "gatun-demo.png";

  @Mixin private CommonOptions common = new CommonOptions();

  @Option(
      names = {"-o", "--output"},
      paramLabel = "DIR|FILE.png",
      defaultValue = ".",
      description = "Where the chart is written (default: " + CHART + " in the current directory).")
  private Path output = Path.of(".");

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "Threads of every engine (default: the cores that the JVM sees).")
  private int threads = Runtime.getRuntime().availableProcessors();

  @Option(
      names = "--batch",
      paramLabel = "N",
      description = "Sentences that are encoded together (default: ${DEFAULT-VALUE}).")
  private int batch = 8;

  @Option(
      names = "--seconds",
      paramLabel = "S",
      description =
          "How long one sample of an engine's speed takes at least (default: ${DEFAULT-VALUE}).")
  private double seconds = 0.25;

  /** Made by the service loader. */
  public DemoCommand() {}

  @Override
  public Integer call() throws IOException {
    if (threads < 1 || threads > 1024) {
      throw common.usage("--threads: found " + threads + ", expected 1 to 1024");
    }
    if (batch < 1 || batch > 1024) {
      throw common.usage("--batch: found " + batch + ", expected 1 to 1024");
    }
    if (!(seconds >= 0 && seconds <= 3600)) {
      throw common.usage("--seconds: found " + seconds + ", expected 0 to 3600");
    }
    Path chart =
        output.getFileName() != null && output.toString().endsWith(".png")
            ? output
            : output.resolve(CHART);
    Outputs.check(chart);
    Demo.Result result =
        Demo.run(threads, batch, seconds, line -> common.err().println("gatun: " + line));
    Outputs.write(chart, DemoChart.png(result));
    if (common.json()) {
      common.printJson(result.formats().stream().map(FormatResult::toJson).toList());
    } else {
      print(result, chart);
    }
    result
        .unavailable()
        .forEach((name, why) -> common.err().println("gatun: " + name + ": not available: " + why));
    List<FormatResult> missed =
        result.formats().stream().filter(format -> !format.passes()).toList();
    for (FormatResult format : missed) {
      common
          .err()
          .println(
              String.format(
                  Locale.ROOT,
                  "gatun: %s: found a worst cosine of %.6f, expected at least %s",
                  format.format().label(),
                  format.cosines().worst(),
                  format.format().bar()));
    }
    return missed.isEmpty() ? 0 : 1;
  }

  private void print(Demo.Result result, Path chart) {
    line(
        "all-MiniLM-L6-v2 on %d sentences (%d tokens), %d threads, %d sentences a batch",
        result.sentences(), result.tokens(), result.threads(), batch);
    line("");
    line(
        "%-6s %8s %8s   %9s %9s   %9s %9s %9s %12s",
        "format",
        "MiB",
        "linear",
        "mean",
        "worst",
        "native",
        "vector",
        "reference",
        "ONNX Runtime");
    line("%-6s %8s %8s   %19s   %42s", "", "", "MiB", "cosine", "sentences a second");
    for (FormatResult f : result.formats()) {
      line(
          "%-6s %8.1f %8.1f   %9.6f %9.6f   %9s %9s %9s %12.1f",
          f.format().label(),
          f.mib(),
          f.linearBytes() / (double) (1 << 20),
          f.cosines().mean(),
          f.cosines().worst(),
          rate(f, "native"),
          rate(f, "vector"),
          rate(f, "reference"),
          f.onnxRate());
    }
    line("");
    for (String backend : Demo.BACKENDS) {
      for (FormatResult f : result.formats()) {
        FormatResult.Run run = f.runs().get(backend);
        if (run != null && !backend.equals("reference")) {
          line(
              "%-6s on %s: compute type %s, %s",
              f.format().label(), backend, run.compute(), run.kernel());
        }
      }
    }
    result.unavailable().forEach((name, why) -> line("%s: not available: %s", name, why));
    line(
        "reference: the definition, made to be read: %d of the sentences, in floats.",
        result.referenceSentences());
    line(
        "ONNX Runtime: the original floats, the same batches (padded), %s, which was the faster way.",
        result.onnxMode());
    line(
        "Cosines are with ONNX Runtime's embeddings, the lowest of all backends. Chart: %s", chart);
    common.out().flush();
  }

  private static String rate(FormatResult format, String backend) {
    FormatResult.Run run = format.runs().get(backend);
    return run == null ? "–" : String.format(Locale.ROOT, "%.1f", run.rate());
  }

  private void line(String format, Object... values) {
    common.out().println(String.format(Locale.ROOT, format, values));
  }
}
