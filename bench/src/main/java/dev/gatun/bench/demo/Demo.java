package dev.gatun.bench.demo;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Operation;
import dev.gatun.layout.Explanation;
import dev.gatun.layout.LayoutRegistry;
import dev.gatun.quantize.NameFilter;
import dev.gatun.quantize.ProgressListener;
import dev.gatun.quantize.Quantizer;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.function.Consumer;

/**
 * Quantizes a real model, runs it on every backend and measures error and speed.
 *
 * <p>Threads are used the way a server does: each takes a batch of sentences and runs all of the
 * encoder for it, so that no thread ever waits for another within a batch. ONNX Runtime is measured
 * both in that way and with all threads in every operator, and its better figure counts.
 */
final class Demo {
  /** In the order of the table. */
  static final List<String> BACKENDS = List.of("native", "vector", "reference");

  /** The definition of every operation, made to be read rather than fast. */
  private static final String REFERENCE = "reference";

  private static final int SAMPLES = 4;

  /** What takes so long for a warm pass is not made to do more. */
  private static final double SLOW_SECONDS = 1;

  /**
   * What was found.
   *
   * @param unavailable backends that could not run, each with the reason
   * @param onnxMode how ONNX Runtime used the threads when it was fastest
   */
  record Result(
      List<FormatResult> formats,
      int sentences,
      int tokens,
      int referenceSentences,
      int threads,
      Map<String, String> unavailable,
      String onnxMode) {}

  /** An encoder that is measured, and the best sample so far. */
  private static final class Candidate {
    final Format format;
    final String backend;
    final Compute compute;
    final BertEncoder encoder;
    Cosines cosines = new Cosines(Double.NaN, Double.NaN);
    double rate;

    Candidate(Format format, String backend, Compute compute, BertEncoder encoder) {
      this.format = format;
      this.backend = backend;
      this.compute = compute;
      this.encoder = encoder;
    }

    boolean passes() {
      return cosines.worst() >= format.bar();
    }
  }

  private final int threads;
  private final int batchSize;
  private final double sampleSeconds;
  private final Consumer<String> progress;
  private final Map<String, String> unavailable = new LinkedHashMap<>();

  /** The part of the sentences that the slow definition runs. */
  private List<Batch> referenceBatches = List.of();

  private Demo(int threads, int batchSize, double sampleSeconds, Consumer<String> progress) {
    this.threads = threads;
    this.batchSize = batchSize;
    this.sampleSeconds = sampleSeconds;
    this.progress = progress;
  }

  /**
   * Runs the demo.
   *
   * @param threads of every engine
   * @param batchSize sentences that are encoded together
   * @param sampleSeconds how long one sample of an engine's speed takes at least; each has several
   * @param progress hears what is being done
   */
  static Result run(int threads, int batchSize, double sampleSeconds, Consumer<String> progress) {
    try (WorkDirectory work = new WorkDirectory();
        ExecutorService workers = Executors.newFixedThreadPool(threads)) {
      return new Demo(threads, batchSize, sampleSeconds, progress).run(work.path(), workers);
    }
  }

  /** The sentences that are encoded. */
  static List<String> sentences() {
    try (InputStream in = Objects.requireNonNull(Demo.class.getResourceAsStream("sentences.txt"));
        BufferedReader lines =
            new BufferedReader(new InputStreamReader(in, StandardCharsets.UTF_8))) {
      return lines.lines().filter(line -> !line.isBlank()).toList();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private Result run(Path work, ExecutorService workers) {
    Path onnx = MiniLm.extractModel(work);
    List<String> sentences = sentences();
    List<Batch> batches;
    try (Tokenizer tokenizer = new Tokenizer(MiniLm.extractTokenizer(work), work)) {
      batches = tokenizer.batches(sentences, batchSize);
    }
    referenceBatches = batches.subList(0, Math.min(threads, batches.size()));
    Map<Format, Path> files = writeFormats(onnx, work);
    List<AutoCloseable> open = new ArrayList<>();
    try {
      Map<Format, Checkpoint> checkpoints = new EnumMap<>(Format.class);
      for (Map.Entry<Format, Path> file : files.entrySet()) {
        Checkpoint checkpoint = Checkpoint.open(file.getValue());
        open.add(checkpoint);
        checkpoints.put(file.getKey(), checkpoint);
      }
      List<Candidate> candidates = candidates(checkpoints, open);
      int width = candidates.getFirst().encoder.width();
      OnnxEncoder onnxInOperators = new OnnxEncoder(onnx, width, threads);
      open.add(onnxInOperators);
      OnnxEncoder onnxPerBatch = new OnnxEncoder(onnx, width, 1);
      open.add(onnxPerBatch);

      progress.accept("comparing embeddings of " + sentences.size() + " sentences");
      List<float[]> expected = Throughput.encodeAll(onnxPerBatch, batches, workers);
      for (Candidate candidate : candidates) {
        List<Batch> part = batchesOf(candidate, batches);
        long start = System.nanoTime();
        List<float[]> actual = Throughput.encodeAll(candidate.encoder, part, workers);
        double seconds = (System.nanoTime() - start) * 1e-9;
        candidate.rate = part.stream().mapToInt(Batch::size).sum() / seconds;
        candidate.cosines = Cosines.of(expected, actual, width);
      }
      progress.accept("measuring speed");
      double[] onnxRates = measure(candidates, onnxInOperators, onnxPerBatch, batches, workers);
      double onnxRate = Math.max(onnxRates[0], onnxRates[1]);
      List<FormatResult> results = new ArrayList<>();
      for (Format format : Format.values()) {
        results.add(
            result(format, files.get(format), checkpoints.get(format), candidates, onnxRate));
      }
      return new Result(
          results,
          sentences.size(),
          batches.stream().mapToInt(Batch::tokenCount).sum(),
          referenceBatches.stream().mapToInt(Batch::size).sum(),
          threads,
          unavailable,
          onnxRates[0] > onnxRates[1] ? "all threads in every operator" : "one batch a thread");
    } finally {
      close(open.reversed());
    }
  }

  private Map<Format, Path> writeFormats(Path onnx, Path work) {
    progress.accept("writing the weights as safetensors");
    Map<Format, Path> files = new EnumMap<>(Format.class);
    for (Format format : Format.values()) {
      // One directory each: some formats keep files beside the checkpoint.
      Path directory = work.resolve(format.label());
      Path target = directory.resolve("model.safetensors");
      try {
        Files.createDirectory(directory);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
      files.put(format, target);
      if (format.writer().isEmpty()) {
        MiniLm.writeSafetensors(onnx, target);
      } else {
        progress.accept("quantizing to " + format.label());
        try (Checkpoint source = Checkpoint.open(files.get(Format.F32));
            Device device = quantizer(format.encoding())) {
          Quantizer.quantize(
              source,
              target,
              format.writer().get(),
              NameFilter.DEFAULT,
              device.backend(),
              ProgressListener.NONE);
        }
      }
    }
    return files;
  }

  /** The best device that quantizes to an encoding. */
  private Device quantizer(Encoding encoding) {
    for (Device.Probe probe : Device.probe()) {
      if (probe.available()) {
        Device device = Device.of(probe.backend(), threads);
        if (device.backend().kernel(Operation.QUANTIZE, encoding, Optional.empty()).isPresent()) {
          return device;
        }
        device.close();
      }
    }
    throw new GatunException(
        "found no backend that quantizes to " + encoding + ", expected at least reference");
  }

  /** Every (format, backend, compute type) for which the backend itself has a kernel. */
  private List<Candidate> candidates(
      Map<Format, Checkpoint> checkpoints, List<AutoCloseable> open) {
    Map<String, Device.Probe> probes = new LinkedHashMap<>();
    Device.probe().forEach(probe -> probes.put(probe.backend(), probe));
    List<Candidate> candidates = new ArrayList<>();
    for (String backend : BACKENDS) {
      Device.Probe probe = probes.get(backend);
      if (probe == null || !probe.available()) {
        unavailable.put(backend, probe == null ? "this build has no such backend" : probe.detail());
        continue;
      }
      Device device = Device.of(backend, 1);
      open.add(device);
      checkpoints.forEach(
          (format, checkpoint) -> {
            boolean runs = false;
            for (Compute compute :
                backend.equals(REFERENCE) ? List.of(Compute.F32) : format.computes()) {
              if (runs(checkpoint, compute, device)) {
                BertEncoder encoder =
                    new BertEncoder(
                        checkpoint, MiniLm.HEADS, MiniLm.LAYER_NORM_EPSILON, compute, device);
                open.add(encoder);
                candidates.add(new Candidate(format, backend, compute, encoder));
                runs = true;
              }
            }
            if (!runs) {
              unavailable.put(
                  backend + " (" + format.label() + ")",
                  "no kernel for linear of " + format.encoding());
            }
          });
    }
    return candidates;
  }

  private static boolean runs(Checkpoint checkpoint, Compute compute, Device device) {
    if (checkpoint.layers().isEmpty()) {
      Backend backend = device.backend();
      return backend.kernel(Operation.LINEAR, Encoding.F32, Optional.of(compute)).isPresent();
    }
    QuantizedTensor weight = checkpoint.layers().values().iterator().next();
    return LayoutRegistry.get()
        .explain(weight, 1, device, compute)
        .runs()
        .map(Explanation.Candidate::backend)
        .filter(device.name()::equals)
        .isPresent();
  }

  private List<Batch> batchesOf(Candidate candidate, List<Batch> all) {
    return candidate.backend.equals(REFERENCE) ? referenceBatches : all;
  }

  /**
   * The best of some samples for each candidate, and for ONNX Runtime in both ways; taken in turns,
   * so that whatever else the machine does meets all of them alike.
   */
  private double[] measure(
      List<Candidate> candidates,
      OnnxEncoder onnxInOperators,
      OnnxEncoder onnxPerBatch,
      List<Batch> batches,
      ExecutorService workers) {
    Throughput all = new Throughput(workers, batches);
    double[] onnxRates = new double[2];
    for (int sample = 0; sample < SAMPLES; sample++) {
      onnxRates[0] = Math.max(onnxRates[0], all.measure(onnxInOperators, 1, sampleSeconds));
      onnxRates[1] = Math.max(onnxRates[1], all.measure(onnxPerBatch, threads, sampleSeconds));
      for (Candidate candidate : candidates) {
        // The first pass, of code that is not compiled yet, says nothing: two more decide.
        boolean slow = sample > 1 && all.sentences() / candidate.rate > SLOW_SECONDS;
        if (!slow && !candidate.backend.equals(REFERENCE)) {
          candidate.rate =
              Math.max(candidate.rate, all.measure(candidate.encoder, threads, sampleSeconds));
        }
      }
    }
    return onnxRates;
  }

  private static FormatResult result(
      Format format,
      Path file,
      Checkpoint checkpoint,
      List<Candidate> candidates,
      double onnxRate) {
    Map<String, Candidate> best = new LinkedHashMap<>();
    for (Candidate candidate : candidates) {
      if (candidate.format == format) {
        best.merge(candidate.backend, candidate, Demo::better);
      }
    }
    Map<String, FormatResult.Run> runs = new LinkedHashMap<>();
    best.forEach(
        (backend, c) ->
            runs.put(
                backend,
                new FormatResult.Run(c.rate, c.compute.name(), c.encoder.kernel(Byte.MAX_VALUE))));
    Cosines cosines =
        best.values().stream().map(c -> c.cosines).reduce(Cosines::lower).orElseThrow();
    try {
      return new FormatResult(
          format, Files.size(file), linearBytes(checkpoint), cosines, runs, onnxRate);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** The faster of those within the bar; when none is, the nearer. */
  private static Candidate better(Candidate a, Candidate b) {
    if (a.passes() != b.passes()) {
      return a.passes() ? a : b;
    }
    double left = a.passes() ? a.rate : a.cosines.worst();
    double right = b.passes() ? b.rate : b.cosines.worst();
    return right > left ? b : a;
  }

  private static long linearBytes(Checkpoint checkpoint) {
    if (!checkpoint.layers().isEmpty()) {
      return checkpoint.layers().values().stream().mapToLong(QuantizedTensor::byteSize).sum();
    }
    return checkpoint.plain().values().stream()
        .filter(t -> t.name().startsWith("encoder.") && t.shape().size() == 2)
        .mapToLong(t -> t.data().byteSize())
        .sum();
  }

  private static void close(List<AutoCloseable> open) {
    for (AutoCloseable closeable : open) {
      try {
        closeable.close();
      } catch (Exception e) {
        throw new GatunException("demo: could not clean up: " + e.getMessage(), e);
      }
    }
  }
}
