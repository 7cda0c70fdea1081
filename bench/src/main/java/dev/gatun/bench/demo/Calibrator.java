package dev.gatun.bench.demo;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.StaticActivations;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.quantize.ActivationScales;
import dev.gatun.quantize.Calibration;
import dev.gatun.quantize.NameFilter;
import dev.gatun.quantize.ProgressListener;
import dev.gatun.quantize.Quantizer;
import dev.gatun.quantize.SmoothQuant;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.stream.IntStream;

/**
 * Calibrates the real model: one half of the sentences passes through observed layers, the other
 * half tells how near the embeddings of the calibrated checkpoint are to the original's, and how
 * near those with quantized weights alone are.
 */
final class Calibrator {
  /** The kinds of activations that are judged. */
  static final String INT8 = "static int8";

  static final String FP8 = "static fp8";

  private static final int BATCH = 8;
  private static final String FILE = "model.safetensors";

  /** What is calibrated. */
  enum Target {
    /** quanto: outputs are rounded as well. */
    INT8("int8", "qint8", Encoding.I8, Compute.I8_STATIC),
    /** quanto, 8-bit floats. */
    QFLOAT8("qfloat8", "qfloat8_e4m3fn", Encoding.F8_E4M3, Compute.F8),
    /** ComfyUI. */
    FP8("fp8", "float8_e4m3fn", Encoding.F8_E4M3, Compute.F8);

    final String label;
    final String writer;
    final Encoding activations;
    final Compute compute;

    Target(String label, String writer, Encoding activations, Compute compute) {
      this.label = label;
      this.writer = writer;
      this.activations = activations;
      this.compute = compute;
    }
  }

  /**
   * How it is done.
   *
   * @param directory keeps the calibrated checkpoints; empty: none are kept
   * @param smooth alphas of SmoothQuant, of which each layer gets the best; empty: no smoothing
   */
  record Options(
      Calibration.Method method,
      double momentum,
      double percentile,
      List<Double> smooth,
      Optional<Path> directory) {}

  /**
   * One line of the result.
   *
   * @param format of the checkpoint
   * @param activations how they are rounded
   * @param weightOnly with weights quantized alone
   * @param calibrated with activations rounded too
   * @param kernel that the widest layer ran
   */
  record Row(
      String format, String activations, Cosines weightOnly, Cosines calibrated, String kernel) {
    /** How much of the mean cosine rounding the activations costs. */
    double loss() {
      return weightOnly.mean() - calibrated.mean();
    }
  }

  private final Options options;
  private final Device device;
  private final Consumer<String> progress;
  private final Path work;
  private final List<Batch> calibrating;
  private final List<Batch> judging;
  private List<float[]> expected = List.of();

  private Calibrator(
      Options options, Device device, Consumer<String> progress, Path work, Tokenizer tokenizer) {
    this.options = options;
    this.device = device;
    this.progress = progress;
    this.work = work;
    List<String> sentences = Demo.sentences();
    calibrating = tokenizer.batches(half(sentences, 0), BATCH);
    judging = tokenizer.batches(half(sentences, 1), BATCH);
  }

  /** Every second sentence. */
  private static List<String> half(List<String> sentences, int first) {
    return IntStream.range(0, sentences.size())
        .filter(i -> i % 2 == first)
        .mapToObj(sentences::get)
        .toList();
  }

  /** Runs it. */
  static List<Row> run(Options options, Device device, Consumer<String> progress) {
    try (WorkDirectory work = new WorkDirectory()) {
      Path onnx = MiniLm.extractModel(work.path());
      try (Tokenizer tokenizer = new Tokenizer(MiniLm.extractTokenizer(work.path()), work.path())) {
        return new Calibrator(options, device, progress, work.path(), tokenizer).run(onnx);
      }
    }
  }

  private List<Row> run(Path onnx) {
    progress.accept("writing the weights as safetensors");
    Path floats = directory(work, "floats").resolve(FILE);
    MiniLm.writeSafetensors(onnx, floats);
    List<Row> rows = new ArrayList<>();
    try (Checkpoint source = Checkpoint.open(floats)) {
      expected = encode(source, name -> source.linear(name, device), judging);
      for (Target target : Target.values()) {
        rows.addAll(run(source, target));
      }
      if (!options.smooth().isEmpty()) {
        rows.add(smooth(source));
      }
    }
    return rows;
  }

  private static Path directory(Path parent, String name) {
    try {
      return Files.createDirectories(parent.resolve(name));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private List<Row> run(Checkpoint source, Target target) {
    progress.accept("calibrating " + target.label);
    Path quantized = directory(work, target.label).resolve(FILE);
    quantize(source, quantized, target.writer);
    Path kept = options.directory().orElse(work.resolve("calibrated"));
    Path calibrated = directory(kept, target.label).resolve(FILE);
    Cosines weightOnly;
    try (Checkpoint checkpoint = Checkpoint.open(quantized)) {
      weightOnly = judge(checkpoint, name -> checkpoint.linear(name, device));
      Calibration calibration = new Calibration(settings(target.activations));
      encode(checkpoint, name -> calibration.linear(checkpoint, name, device), calibrating);
      ActivationScales.write(checkpoint, calibration.scales(), calibrated);
      ActivationScales.save(calibration.scales(), calibrated.getParent());
    }
    List<Row> rows = new ArrayList<>();
    try (Checkpoint checkpoint = Checkpoint.open(calibrated)) {
      String activations = target.compute == Compute.F8 ? FP8 : INT8;
      boolean outputs =
          checkpoint.layers().values().stream()
              .anyMatch(
                  weight -> weight.activations().filter(StaticActivations::outputs).isPresent());
      if (outputs) {
        rows.add(
            row(
                checkpoint,
                target.label,
                activations + ", outputs too",
                weightOnly,
                name -> checkpoint.linear(name, target.compute, device)));
      }
      rows.add(
          row(
              checkpoint,
              target.label,
              activations,
              weightOnly,
              name -> streamlined(checkpoint, name, target.compute)));
    }
    return rows;
  }

  private Calibration.Settings settings(Encoding activations) {
    return new Calibration.Settings(
        activations, options.method(), options.momentum(), options.percentile(), false);
  }

  /** As quanto runs a model that it has calibrated: what only floats are made of is not rounded. */
  private Linear streamlined(Checkpoint checkpoint, String name, Compute compute) {
    QuantizedTensor weight = checkpoint.quantized(name);
    return Linear.of(
        weight.withActivations(weight.activations().map(StaticActivations::streamlined)),
        checkpoint.bias(name).orElse(null),
        compute,
        device);
  }

  private Row smooth(Checkpoint source) {
    progress.accept("smoothing");
    // With 8-bit floats x is nearly what it is without rounding, outliers included.
    Calibration calibration =
        new Calibration(Calibration.Settings.of(Encoding.F8_E4M3, Calibration.Method.ABSMAX));
    encode(source, name -> calibration.linear(source, name, device), calibrating);
    Map<String, float[]> factors = new LinkedHashMap<>();
    for (String layer : calibration.scales().keySet()) {
      factors.put(
          layer,
          SmoothQuant.best(
              calibration.columns(layer).orElseThrow(),
              calibration.sample(layer).orElseThrow(),
              source.tensor(layer + ".weight"),
              options.smooth(),
              device));
    }
    Path smoothed = directory(work, "smoothed").resolve(FILE);
    SmoothQuant.write(source, factors, smoothed);
    Path kept = options.directory().orElse(work.resolve("calibrated"));
    Path quantized = directory(work, "int8-smooth").resolve(FILE);
    Path calibrated = directory(kept, "int8-smooth").resolve(FILE);
    try (Checkpoint floats = Checkpoint.open(smoothed)) {
      quantize(floats, quantized, "comfy-int8-row");
    }
    Cosines weightOnly;
    try (Checkpoint checkpoint = Checkpoint.open(quantized)) {
      weightOnly = judge(checkpoint, name -> checkpoint.linear(name, device));
      Calibration again = new Calibration(settings(Encoding.I8));
      encode(checkpoint, name -> again.linear(checkpoint, name, device), calibrating);
      ActivationScales.write(checkpoint, again.scales(), calibrated);
    }
    try (Checkpoint checkpoint = Checkpoint.open(calibrated)) {
      return row(
          checkpoint,
          "int8-smooth",
          INT8,
          weightOnly,
          name -> checkpoint.linear(name, Compute.I8_STATIC, device));
    }
  }

  private void quantize(Checkpoint source, Path target, String format) {
    Quantizer.quantize(
        source, target, format, NameFilter.DEFAULT, device.operations(), ProgressListener.NONE);
  }

  private Row row(
      Checkpoint checkpoint,
      String format,
      String activations,
      Cosines weightOnly,
      Function<String, Linear> layers) {
    try (BertEncoder encoder = encoder(checkpoint, layers)) {
      return new Row(
          format, activations, weightOnly, judge(encoder), encoder.kernel(Byte.MAX_VALUE));
    }
  }

  private Cosines judge(Checkpoint checkpoint, Function<String, Linear> layers) {
    try (BertEncoder encoder = encoder(checkpoint, layers)) {
      return judge(encoder);
    }
  }

  private Cosines judge(BertEncoder encoder) {
    List<float[]> actual = judging.stream().map(encoder::encode).toList();
    return Cosines.of(expected, actual, encoder.width());
  }

  private static List<float[]> encode(
      Checkpoint checkpoint, Function<String, Linear> layers, List<Batch> batches) {
    try (BertEncoder encoder = encoder(checkpoint, layers)) {
      return batches.stream().map(encoder::encode).toList();
    }
  }

  private static BertEncoder encoder(Checkpoint checkpoint, Function<String, Linear> layers) {
    return new BertEncoder(checkpoint, MiniLm.HEADS, MiniLm.LAYER_NORM_EPSILON, layers);
  }
}
