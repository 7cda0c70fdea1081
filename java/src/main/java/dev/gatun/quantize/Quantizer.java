package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.checkpoint.TensorFileWriter;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.Relay;
import dev.gatun.kernel.Scaling;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.PlainLayout;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/**
 * Writes a whole checkpoint in quantized formats, layer by layer and several layers side by side:
 * memory holds less than twice the largest tensor, however large the checkpoint is. A run that is
 * killed is taken up again where it stood when the same one is started once more.
 */
public final class Quantizer {
  private static final String WEIGHT = ".weight";
  private static final long COPY_CHUNK = 1L << 26;

  private final Checkpoint source;
  private final QuantizePlan plan;
  private final Backend backend;
  private final int threads;
  private final ProgressListener progress;
  private final Map<String, LayerWriter> writers = new ConcurrentHashMap<>();

  private Quantizer(
      Checkpoint source,
      QuantizePlan plan,
      Backend backend,
      int threads,
      ProgressListener progress) {
    this.source = source;
    this.plan = plan;
    this.backend = backend;
    this.threads = threads;
    this.progress = progress;
  }

  /** Every format that can be written, each with one line of help. */
  public static Map<String, String> formats() {
    Map<String, String> all = new TreeMap<>();
    Checkpoint.formats().forEach(format -> all.putAll(format.writes()));
    return all;
  }

  /**
   * {@link #quantize(Checkpoint, Path, QuantizePlan, Backend, int, ProgressListener)} to one
   * format.
   */
  public static Report quantize(
      Checkpoint source,
      Path target,
      String format,
      NameFilter filter,
      Backend backend,
      ProgressListener progress) {
    family(format);
    int threads = Runtime.getRuntime().availableProcessors();
    return quantize(source, target, QuantizePlan.of(format, filter), backend, threads, progress);
  }

  /**
   * Quantizes a checkpoint.
   *
   * @param source of plain floats
   * @param target the file to write; files that the format keeps beside it go into its directory
   * @param plan which layers, and to which format; only two-dimensional float tensors named {@code
   *     *.weight} that the format accepts are candidates, everything else is copied
   * @param backend who quantizes
   * @param threads how many layers are worked on at once, as far as memory allows
   * @throws GatunException when a format is unknown, the checkpoint is quantized already, no layer
   *     is left to quantize, a weight cannot be quantized, or the file cannot be written; nothing
   *     is left behind then
   */
  public static Report quantize(
      Checkpoint source,
      Path target,
      QuantizePlan plan,
      Backend backend,
      int threads,
      ProgressListener progress) {
    Quantizer quantizer = new Quantizer(source, plan, backend, threads, progress);
    if (!source.layers().isEmpty() || !source.unsupported().isEmpty()) {
      String layer =
          source.layers().isEmpty()
              ? source.unsupported().keySet().iterator().next()
              : source.layers().keySet().iterator().next();
      throw new GatunException(
          source.path()
              + ": layer '"
              + layer
              + "': found a quantized weight, expected plain floats (convert it, or dequantize it"
              + " first)");
    }
    return quantizer.run(target, Optional.empty());
  }

  /**
   * Writes a quantized checkpoint in another format: layers that are quantized stay so, everything
   * else is copied. Where the format can hold a layer's codes and scales they are laid out anew;
   * else the layer is dequantized, as its own library does it, and quantized again. What x is
   * multiplied by before the weight goes with it where the format has a place for it, and is
   * multiplied into the weight where not. A checkpoint of plain floats is quantized.
   *
   * @param target the file to write; files that the format keeps beside it go into its directory
   * @param format one of {@link #formats()}
   * @throws GatunException when the format is unknown, a layer cannot be read or quantized, or the
   *     file cannot be written; nothing is left behind then
   */
  public static Report convert(
      Checkpoint source, Path target, String format, Backend backend, ProgressListener progress) {
    NameFilter filter = source.layers().isEmpty() ? NameFilter.DEFAULT : NameFilter.NOTHING;
    int threads = Runtime.getRuntime().availableProcessors();
    Quantizer quantizer =
        new Quantizer(source, QuantizePlan.of(format, filter), backend, threads, progress);
    quantizer.writer(format);
    for (Map.Entry<String, String> layer : source.unsupported().entrySet()) {
      throw new GatunException(
          source.path() + ": layer '" + layer.getKey() + "': " + layer.getValue());
    }
    source
        .unclaimed()
        .forEach(
            (name, why) -> progress.warning("tensor '" + name + "' is copied as it is: " + why));
    return quantizer.run(target, Optional.of(format));
  }

  /** The format that has a name among those that it writes. */
  static CheckpointFormat family(String name) {
    for (CheckpointFormat format : Checkpoint.formats()) {
      if (format.writes().containsKey(name)) {
        return format;
      }
    }
    throw new GatunException(
        "no format '" + name + "' to write, expected one of " + formats().keySet());
  }

  private LayerWriter writer(String format) {
    return writers.computeIfAbsent(format, name -> family(name).writer(name));
  }

  /** One layer that is to be written. */
  private interface Work {
    String layer();

    String format();

    /** Bytes of the source. */
    long bytes();
  }

  private record Fresh(String layer, String format, Tensor weight) implements Work {
    @Override
    public long bytes() {
      return weight.data().byteSize();
    }
  }

  private record Again(String layer, String format, QuantizedTensor weight) implements Work {
    @Override
    public long bytes() {
      return weight.byteSize();
    }
  }

  private Report run(Path target, Optional<String> converted) {
    List<Work> work = new ArrayList<>();
    List<Tensor> copied = new ArrayList<>();
    List<Tensor> folded = new ArrayList<>();
    converted.ifPresent(
        format ->
            source.layers().forEach((layer, weight) -> work.add(new Again(layer, format, weight))));
    for (Tensor tensor : source.plain().values()) {
      Optional<String> format = candidate(tensor);
      if (format.isPresent()) {
        Fresh fresh = new Fresh(layerOf(tensor), format.get(), tensor);
        work.add(fresh);
        multiplierOfFloats(fresh).ifPresent(folded::add);
      } else {
        copied.add(tensor);
      }
    }
    copied.removeAll(folded);
    if (work.isEmpty()) {
      throw new GatunException(
          source.path()
              + ": found no weight to quantize to "
              + plan.description()
              + ", expected two-dimensional float tensors *.weight that the filters let through");
    }
    check(work);
    progress.start(source.tensors().values().stream().mapToLong(t -> t.data().byteSize()).sum());
    try (Spool spool = Spool.open(target, job(source, plan, converted))) {
      Set<String> done = spool.layers().keySet();
      if (!done.isEmpty()) {
        progress.warning(
            "an earlier run was interrupted: going on after " + done.size() + " layers");
      }
      for (Work item : work) {
        if (done.contains(item.layer())) {
          progress.advance(item.layer(), item.bytes());
        }
      }
      runAll(work.stream().filter(item -> !done.contains(item.layer())).toList(), spool);
      List<Spool.Layer> layers =
          work.stream()
              .map(item -> Objects.requireNonNull(spool.layers().get(item.layer())))
              .toList();
      return new Assembly(source, layers, copied, progress, this::writer).write(target, spool);
    }
  }

  /** Refuses by name what a format does not do, before anything is written. */
  private void check(List<Work> work) {
    Scaling scaling = plan.scaling();
    work.stream().map(Work::format).distinct().forEach(f -> writer(f).validateEnvironment(backend));
    for (Work item : work) {
      Optional<String> why = writer(item.format()).refuses(scaling);
      if (!plan.isTolerant() && !scaling.isDefault() && why.isPresent()) {
        throw new GatunException(
            source.path()
                + ": layer '"
                + item.layer()
                + "': found scale "
                + scaling
                + " for "
                + item.format()
                + ", expected "
                + Scaling.DEFAULT
                + ": "
                + why.get());
      }
    }
  }

  /** What a run that was interrupted must have in common with this one. */
  static String job(Checkpoint source, QuantizePlan plan, Optional<String> converted) {
    StringBuilder job = new StringBuilder(converted.map(f -> "convert ").orElse("quantize "));
    job.append(plan.description());
    for (Path file : source.files()) {
      try {
        job.append('\n')
            .append(file.toAbsolutePath())
            .append(' ')
            .append(Files.size(file))
            .append(' ')
            .append(Files.getLastModifiedTime(file));
      } catch (IOException e) {
        throw new GatunException(file + ": cannot be read (" + e.getMessage() + ")", e);
      }
    }
    return job.toString();
  }

  private Optional<String> candidate(Tensor tensor) {
    return isCandidate(tensor)
        ? plan.format(layerOf(tensor), tensor).filter(format -> writer(format).isQuantized(tensor))
        : Optional.empty();
  }

  /** Whether a tensor may be the weight of a layer. */
  static boolean isCandidate(Tensor tensor) {
    return tensor.name().endsWith(WEIGHT) && tensor.shape().size() == 2;
  }

  /** The plain name of a weight's layer. */
  static String layerOf(Tensor weight) {
    return weight.name().substring(0, weight.name().length() - WEIGHT.length());
  }

  private void runAll(List<Work> work, Spool spool) {
    long largest =
        source.tensors().values().stream().mapToLong(t -> t.data().byteSize()).max().orElse(0);
    long limit =
        work.stream()
            .map(Work::format)
            .distinct()
            .mapToLong(format -> writer(format).adjustMaxMemory(2 * largest))
            .min()
            .orElse(0);
    MemoryBudget budget = new MemoryBudget(limit);
    AtomicReference<@Nullable RuntimeException> failure = new AtomicReference<>();
    try (ExecutorService workers = Executors.newFixedThreadPool(threads)) {
      for (Work item : work) {
        long cost = MemoryBudget.cost(item.bytes());
        budget.acquire(cost);
        if (failure.get() != null) {
          budget.release(cost);
          break;
        }
        var _ =
            workers.submit(
                () -> {
                  try {
                    run(item, spool);
                  } catch (RuntimeException | Error e) {
                    failure.compareAndSet(
                        null, e instanceof RuntimeException r ? r : new IllegalStateException(e));
                  } finally {
                    budget.release(cost);
                  }
                });
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new GatunException("interrupted", e);
    }
    RuntimeException failed = failure.get();
    if (failed != null) {
      throw failed;
    }
  }

  private void run(Work item, Spool spool) {
    source.verifyFiles();
    try (Arena arena = Arena.ofShared()) {
      switch (item) {
        case Fresh fresh -> quantize(fresh, spool, arena);
        case Again again -> {
          convert(again, spool, arena);
          source.release(again.weight);
        }
        default -> throw new IllegalStateException("unknown work");
      }
    }
  }

  private void quantize(Fresh item, Spool spool, Arena arena) {
    MemorySegment data = source.again(item.weight.data(), arena);
    Optional<Tensor> multiplier = multiplierOfFloats(item);
    if (multiplier.isPresent()) {
      data = arena.allocate(data.byteSize(), 64).copyFrom(data);
    }
    Tensor weight = new Tensor(item.weight.name(), item.weight.dtype(), item.weight.shape(), data);
    multiplier.ifPresent(m -> fold(item, weight, m));
    LayerWriter writer = writer(item.format);
    writer.checkShape(weight);
    boolean refused = writer.refuses(plan.scaling()).isPresent();
    Scaling scaling = refused ? Scaling.DEFAULT : plan.scaling(); // only when the plan is tolerant
    LayerWriter.Quantized quantized = writer.quantize(item.layer, weight, scaling, backend, arena);
    keep(item, item.format, quantized, weight, LayerReport.How.QUANTIZED, spool);
  }

  /** What the input of a layer of floats is multiplied by, where the format has no place for it. */
  private Optional<Tensor> multiplierOfFloats(Fresh item) {
    Optional<Tensor> multiplier = source.inputMultiplier(item.layer);
    String name = writer(item.format).inputMultiplier(item.layer).orElse("");
    return multiplier.filter(m -> !m.name().equals(name));
  }

  /** A layer that is quantized already. */
  private void convert(Again item, Spool spool, Arena arena) {
    QuantizedTensor weight = source.quantized(item.layer);
    LayerWriter writer = writer(item.format);
    Tensor plain = dequantized(weight, arena);
    Optional<Tensor> multiplier = weight.inputMultiplier();
    Optional<Tensor> carried =
        writer.inputMultiplier(item.layer).flatMap(name -> multiplier.map(m -> renamed(m, name)));
    boolean takes = plain.shape().size() == 2 && writer.accepts(plain);
    if (takes && carried.isPresent() == multiplier.isPresent()) {
      Optional<LayerWriter.Quantized> relaid =
          writer
              .blank(item.layer, weight, arena)
              .filter(blank -> Relay.fill(weight.matrix(), blank.matrix()))
              .map(blank -> with(with(blank.finished(), carried), inputScale(item, weight)));
      if (relaid.isPresent()) {
        boolean same = Relay.isSame(weight.matrix(), relaid.get().matrix());
        LayerReport.How how = same ? LayerReport.How.LOSSLESS : LayerReport.How.RELAID;
        keep(item, item.format, relaid.get(), plain, how, spool);
        return;
      }
    }
    if (multiplier.isPresent() && !(takes && carried.isPresent())) {
      fold(item, plain, multiplier.get());
    }
    if (takes) {
      LayerWriter.Quantized quantized =
          with(writer.quantize(item.layer, plain, backend, arena), carried);
      keep(item, item.format, quantized, plain, LayerReport.How.REQUANTIZED, spool);
    } else {
      Matrix floats =
          new PlainLayout(weight.dtype())
              .matrix(weight.matrix().n(), weight.matrix().k(), plain.data());
      LayerWriter.Quantized unchanged = new LayerWriter.Quantized(List.of(plain), floats);
      keep(item, item.format, unchanged, plain, LayerReport.How.DEQUANTIZED, spool);
    }
  }

  /** The scale of a layer's static activations, when it stays in its checkpoint format. */
  private Optional<Tensor> inputScale(Again item, QuantizedTensor weight) {
    String own = source.format(item.layer).map(CheckpointFormat::name).orElse("");
    return weight
        .part(QuantizedTensor.INPUT_SCALE)
        .filter(scale -> own.equals(family(item.format).name()))
        .flatMap(s -> writer(item.format).inputScale(item.layer).map(name -> renamed(s, name)));
  }

  private static Tensor renamed(Tensor t, String name) {
    return new Tensor(name, t.dtype(), t.shape(), t.data());
  }

  private static LayerWriter.Quantized with(
      LayerWriter.Quantized quantized, Optional<Tensor> part) {
    List<Tensor> tensors = new ArrayList<>(quantized.tensors());
    part.ifPresent(tensors::add);
    return new LayerWriter.Quantized(tensors, quantized.matrix());
  }

  /** Multiplies the columns of a weight by what its input would have been multiplied by. */
  private void fold(Work item, Tensor weight, Tensor multiplier) {
    synchronized (progress) {
      progress.warning(
          "layer '"
              + item.layer()
              + "': '"
              + multiplier.name()
              + "' is multiplied into the weight, since there is no place for it");
    }
    Encoding type = weight.dtype().encoding().orElseThrow();
    Encoding factors = multiplier.dtype().encoding().orElseThrow();
    long k = multiplier.elements();
    for (long i = 0; i < weight.elements(); i++) {
      float w = Numbers.get(type, weight.data(), i);
      float product = w * Numbers.get(factors, multiplier.data(), i % k);
      Numbers.put(type, weight.data(), i, product);
    }
  }

  private Tensor dequantized(QuantizedTensor weight, Arena arena) {
    Matrix matrix = weight.matrix();
    SafetensorsWriter.Entry entry =
        new SafetensorsWriter.Entry(
            weight.name() + WEIGHT, DType.valueOf(weight.dtype().name()), weight.shape());
    MemorySegment data =
        arena.allocate(Math.max(1, entry.byteSize()), 64).asSlice(0, entry.byteSize());
    backend.dequantize(matrix, 0, matrix.n(), data, weight.dtype());
    return new Tensor(entry.name(), entry.dtype(), entry.shape(), data);
  }

  private void keep(
      Work item,
      String format,
      LayerWriter.Quantized quantized,
      Tensor before,
      LayerReport.How how,
      Spool spool) {
    Matrix matrix = quantized.matrix();
    if (how == LayerReport.How.LOSSLESS) { // in the type that the weight had
      matrix = matrix.withResult(before.dtype().encoding().orElseThrow());
    }
    ErrorMeter meter = ErrorMeter.measure(matrix, before, backend);
    boolean rounded = how == LayerReport.How.QUANTIZED || how == LayerReport.How.REQUANTIZED;
    if (rounded && !meter.isFinite()) {
      throw new GatunException(
          source.path()
              + ": tensor '"
              + before.name()
              + "': found NaN or infinity, expected finite numbers");
    }
    long bytes = quantized.tensors().stream().mapToLong(t -> t.data().byteSize()).sum();
    LayerReport report =
        meter.report(item.layer(), quantized.matrix(), item.bytes(), bytes, how, format);
    LayerWriter.Written written =
        new LayerWriter.Written(
            item.layer(),
            format,
            before.dtype(),
            before.shape(),
            quantized.tensors().stream().map(SafetensorsWriter.Entry::of).toList());
    spool.add(written, quantized.tensors(), report);
    synchronized (progress) {
      progress.advance(item.layer(), item.bytes());
      progress.layer(report);
    }
  }

  /** Copies a tensor's bytes without keeping more than a piece of them in memory. */
  static void copy(Checkpoint source, Tensor tensor, TensorFileWriter out) {
    MemorySegment data = tensor.data();
    for (long at = 0; at < data.byteSize(); at += COPY_CHUNK) {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment piece = data.asSlice(at, Math.min(COPY_CHUNK, data.byteSize() - at));
        out.write(tensor.name(), at, source.again(piece, arena));
      }
    }
  }
}
