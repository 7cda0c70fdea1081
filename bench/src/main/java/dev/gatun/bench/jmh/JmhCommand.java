package dev.gatun.bench.jmh;

import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.GatunException;
import dev.gatun.cli.Command;
import dev.gatun.cli.CommonOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import org.openjdk.jmh.profile.GCProfiler;
import org.openjdk.jmh.results.format.ResultFormatType;
import org.openjdk.jmh.runner.Runner;
import org.openjdk.jmh.runner.RunnerException;
import org.openjdk.jmh.runner.options.ChainedOptionsBuilder;
import org.openjdk.jmh.runner.options.OptionsBuilder;
import org.openjdk.jmh.runner.options.TimeValue;
import org.openjdk.jmh.runner.options.VerboseMode;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code gatun bench jmh}: the JMH benchmarks, with what they allocate. */
@CommandLine.Command(
    name = "jmh",
    description = {
      "Run the JMH benchmarks whose names match, with JMH's gc profiler: what a call from Java costs (CallCost), linear layers"
          + " and what they allocate (LinearForward), quantizing and dequantizing beside a copy (Codecs).",
      "All of them take about half an hour."
    })
public final class JmhCommand implements Command {
  @Mixin private CommonOptions common = new CommonOptions();

  @Parameters(
      arity = "0..1",
      paramLabel = "REGEX",
      defaultValue = ".*",
      description = "Which benchmarks (default: all).")
  private String pattern = ".*";

  @Option(
      names = {"-p", "--param"},
      paramLabel = "NAME=V,V",
      description = "Values of a parameter, instead of all: -p backend=native -p encoding=NF4,I8.")
  private Map<String, String> parameters = new LinkedHashMap<>();

  @Option(
      names = "--seconds",
      paramLabel = "S",
      description = "Length of an iteration, instead of the benchmark's own.")
  private Optional<Double> seconds = Optional.empty();

  /** Made by the service loader. */
  public JmhCommand() {}

  @Override
  public Optional<String> parent() {
    return Optional.of("bench");
  }

  @Override
  public Integer call() throws IOException {
    Path results = Files.createTempFile("gatun-jmh-", ".json");
    try {
      ChainedOptionsBuilder options =
          new OptionsBuilder()
              .include(pattern)
              .addProfiler(GCProfiler.class)
              .shouldFailOnError(true);
      parameters.forEach((name, values) -> options.param(name, values.split(",", -1)));
      seconds.ifPresent(
          s -> {
            if (!(s > 0 && s <= 3600)) {
              throw common.usage("--seconds: found " + s + ", expected more than 0, up to 3600");
            }
            TimeValue time = TimeValue.nanoseconds((long) (s * 1e9));
            options.warmupTime(time).measurementTime(time);
          });
      if (common.json()) {
        options
            .verbosity(VerboseMode.SILENT)
            .resultFormat(ResultFormatType.JSON)
            .result(results.toString());
      }
      if (new Runner(options.build()).run().isEmpty()) {
        throw new GatunException(
            "bench jmh: found no benchmark that matches '" + pattern + "', expected at least one");
      }
      if (common.json()) {
        common.printJson(new ObjectMapper().readTree(results.toFile()));
      }
      return 0;
    } catch (RunnerException e) {
      throw new GatunException("bench jmh: " + e.getMessage(), e);
    } finally {
      Files.deleteIfExists(results);
    }
  }
}
