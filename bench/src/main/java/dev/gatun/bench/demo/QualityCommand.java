package dev.gatun.bench.demo;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.cli.Command;
import dev.gatun.cli.CommonOptions;
import dev.gatun.kernel.ScaleMethod;
import dev.gatun.kernel.Scaling;
import dev.gatun.quantize.LayerReport;
import dev.gatun.quantize.NameFilter;
import dev.gatun.quantize.ProgressListener;
import dev.gatun.quantize.QuantizePlan;
import dev.gatun.quantize.Quantizer;
import dev.gatun.quantize.Report;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code gatun bench quality}: what formats and scale methods lose on a real model. */
@CommandLine.Command(
    name = "quality",
    description = {
      "Quantize all-MiniLM-L6-v2 to each format with each scale method, run it on real sentences and"
          + " compare the embeddings with those of the floats.",
      "Bits a weight, the worst and the median layer's signal to noise, what a method gains over"
          + " absmax there, and the mean and worst cosine."
    })
public final class QualityCommand implements Command {
  private static final int BATCH = 8;

  @Mixin private CommonOptions common = new CommonOptions();

  @Option(
      names = "--formats",
      paramLabel = "F",
      split = ",",
      defaultValue =
          "qint8,comfy-int8,torchao-int8wo,float8_e4m3fn,qfloat8_e4m3fn,qfloat8_e5m2,gguf-q8_0,gguf-q6_k,"
              + "nf4,nf4-nested,fp4,comfy-nvfp4,qint4,torchao-int4wo,torchao-int4wo-g32,gguf-q4_k,gguf-q4_0,qint2",
      description = "Formats; default: ${DEFAULT-VALUE}.")
  private List<String> formats = List.of();

  @Option(
      names = "--scales",
      paramLabel = "S",
      split = ",",
      defaultValue = "absmax,percentile=99.9,mse,hqq",
      description = "Scale methods, each in the formats that take it; default: ${DEFAULT-VALUE}.")
  private List<String> scales = List.of();

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "Threads (default: the cores that the JVM sees).")
  private int threads = Runtime.getRuntime().availableProcessors();

  /** Made by the service loader. */
  public QualityCommand() {}

  /**
   * One row.
   *
   * @param gainDb of the median layer over absmax
   */
  private record Row(
      String format,
      String scale,
      double bits,
      double worstDb,
      double medianDb,
      double gainDb,
      Cosines cosines) {
    Map<String, Object> json() {
      Map<String, Object> json = new LinkedHashMap<>();
      json.put("format", format);
      json.put("scale", scale);
      json.put("bitsPerWeight", bits);
      json.put("worstSnrDb", worstDb);
      json.put("medianSnrDb", medianDb);
      json.put("medianGainDb", gainDb);
      json.put("meanCosine", cosines.mean());
      json.put("worstCosine", cosines.worst());
      return json;
    }
  }

  @Override
  public Optional<String> parent() {
    return Optional.of("bench");
  }

  @Override
  public Integer call() throws IOException {
    List<ScaleMethod> methods = new ArrayList<>();
    try {
      scales.forEach(name -> methods.add(ScaleMethod.of(name)));
    } catch (GatunException e) {
      throw common.usage("--scales: " + e.getMessage());
    }
    for (String format : formats) {
      if (!Quantizer.formats().containsKey(format)) {
        throw common.usage("--formats: found '" + format + "', expected a format to write");
      }
    }
    if (threads < 1 || threads > 1024) {
      throw common.usage("--threads: found " + threads + ", expected 1 to 1024");
    }
    List<Row> rows;
    try (WorkDirectory work = new WorkDirectory();
        ExecutorService workers = Executors.newFixedThreadPool(threads);
        Device device = Device.best(1)) {
      rows = new Run(work.path(), workers, device).rows(methods);
    }
    if (common.json()) {
      common.printJson(rows.stream().map(Row::json).toList());
    } else {
      print(rows);
    }
    return 0;
  }

  /** The model, its sentences and what its floats make of them. */
  private final class Run {
    private final Path work;
    private final ExecutorService workers;
    private final Device device;
    private final Path floats;
    private final List<Batch> batches;
    private final List<float[]> expected;
    private int width;

    Run(Path work, ExecutorService workers, Device device) {
      this.work = work;
      this.workers = workers;
      this.device = device;
      floats = work.resolve("floats.safetensors");
      MiniLm.writeSafetensors(MiniLm.extractModel(work), floats);
      try (Tokenizer tokenizer = new Tokenizer(MiniLm.extractTokenizer(work), work)) {
        batches = tokenizer.batches(Demo.sentences(), BATCH);
      }
      expected = encode(floats);
    }

    private List<float[]> encode(Path model) {
      try (Checkpoint checkpoint = Checkpoint.open(model);
          BertEncoder encoder =
              new BertEncoder(
                  checkpoint, MiniLm.HEADS, MiniLm.LAYER_NORM_EPSILON, Compute.F32, device)) {
        width = encoder.width();
        return Throughput.encodeAll(encoder, batches, workers);
      }
    }

    List<Row> rows(List<ScaleMethod> methods) throws IOException {
      List<Row> rows = new ArrayList<>();
      for (String format : formats) {
        LayerWriter writer =
            Checkpoint.formats().stream()
                .filter(f -> f.writes().containsKey(format))
                .findFirst()
                .orElseThrow()
                .writer(format);
        double absmax = Double.NaN;
        for (ScaleMethod method : methods) {
          Scaling scaling = Scaling.of(method);
          if (writer.refuses(scaling).isPresent()) {
            continue;
          }
          common.err().println("gatun: " + format + " " + method.text());
          common.err().flush();
          Row row = row(format, scaling, absmax);
          absmax = method.equals(ScaleMethod.ABSMAX) ? row.medianDb : absmax;
          rows.add(row);
        }
      }
      return rows;
    }

    private Row row(String format, Scaling scaling, double absmax) throws IOException {
      Path directory = Files.createDirectory(work.resolve(format + "-" + scaling.scale().text()));
      String name = format.startsWith("gguf") ? "model.gguf" : "model.safetensors";
      Path target = directory.resolve(name);
      Report report;
      try (Checkpoint source = Checkpoint.open(floats)) {
        QuantizePlan plan = QuantizePlan.of(format, NameFilter.DEFAULT).with(scaling);
        report =
            Quantizer.quantize(
                source, target, plan, device.operations(), threads, ProgressListener.NONE);
      }
      Cosines cosines = Cosines.of(expected, encode(target), width);
      for (Path file : report.files()) {
        Files.delete(file);
      }
      double[] snrs = report.layers().stream().mapToDouble(LayerReport::snrDb).sorted().toArray();
      double bytes = report.layers().stream().mapToDouble(LayerReport::bytesAfter).sum();
      double weights = report.layers().stream().mapToDouble(l -> l.rows() * l.columns()).sum();
      double median = snrs[snrs.length / 2];
      return new Row(
          format,
          scaling.scale().text(),
          8 * bytes / weights,
          snrs[0],
          median,
          median - absmax,
          cosines);
    }
  }

  private void print(List<Row> rows) {
    line(
        "| format | scale | bits a weight | worst layer, dB | median layer, dB |"
            + " median gain over absmax, dB | mean cosine | worst cosine |");
    line("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    for (Row row : rows) {
      line(
          "| %s | %s | %.3f | %.2f | %.2f | %s | %.5f | %.5f |",
          row.format,
          row.scale,
          row.bits,
          row.worstDb,
          row.medianDb,
          Double.isNaN(row.gainDb) ? "" : String.format(Locale.ROOT, "%.2f", row.gainDb),
          row.cosines.mean(),
          row.cosines.worst());
    }
    common.out().flush();
  }

  private void line(String format, Object... values) {
    common.out().println(String.format(Locale.ROOT, format, values));
  }
}
