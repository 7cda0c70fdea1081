package dev.gatun.quantize;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.OutputException;
import dev.gatun.checkpoint.OutputFile;
import dev.gatun.checkpoint.TensorFileWriter;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Scaling;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * Writes a whole checkpoint in quantized formats. Where a format allows it, threads share in a
 * layer's rows and write them straight to their places: memory holds a few MiB for each thread.
 * Other layers are quantized whole, several side by side, in less than twice the largest tensor's
 * memory. A run that is killed is taken up again where it stood when the same one is started once
 * more.
 */
public final class Quantizer {
  private static final String WEIGHT = ".weight";
  private static final long COPY_CHUNK = 1L << 26;

  private final Checkpoint source;
  private final QuantizePlan plan;
  private final Backend backend;
  private final int threads;
  private final ProgressListener progress;
  private final Writers writers = new Writers();

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
   * @param threads how many share in the work, as far as memory allows
   * @throws GatunException when a format is unknown, the checkpoint is quantized already, no layer
   *     is left to quantize, a weight cannot be quantized, or the file cannot be written; nothing
   *     is left behind then, but when the disk fails in the middle ({@link OutputException}) the
   *     layers that are done, which the same run goes on after
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
    quantizer.writers.of(format);
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
      if (format.canWrite(name)) {
        return format;
      }
    }
    throw new GatunException(
        "no format '" + name + "' to write, expected one of " + formats().keySet());
  }

  private Report run(Path target, Optional<String> converted) {
    List<LayerWork> work = new ArrayList<>();
    List<Tensor> copied = new ArrayList<>();
    List<Tensor> folded = new ArrayList<>();
    converted.ifPresent(
        format ->
            source
                .layers()
                .forEach((layer, weight) -> work.add(new LayerWork.Again(layer, format, weight))));
    for (Tensor tensor : source.plain().values()) {
      Optional<String> format = candidate(tensor);
      if (format.isPresent()) {
        LayerWork.Fresh fresh = new LayerWork.Fresh(layerOf(tensor), format.get(), tensor);
        work.add(fresh);
        writers.multiplierOfFloats(source, fresh).ifPresent(folded::add);
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
    if (plan.convolutions() && work.stream().noneMatch(Quantizer::isConvolution)) {
      throw new GatunException(
          source.path()
              + ": found no convolution to quantize to "
              + plan.description()
              + ", expected four-dimensional float tensors *.weight and a format of quanto's");
    }
    check(work);
    checkRoom(target, work, copied);
    progress.start(source.tensors().values().stream().mapToLong(t -> t.data().byteSize()).sum());
    try (Journal journal = Journal.open(target, job(source, plan, converted), converted.isEmpty());
        Spool spool = new Spool(target, journal)) {
      try {
        return run(target, work, copied, journal, spool);
      } catch (OutputException e) {
        if (!journal.keep()) {
          throw e;
        }
        spool.keep();
        throw e.with("; what is done is kept beside it, and the same run goes on after that");
      }
    }
  }

  private Report run(
      Path target, List<LayerWork> work, List<Tensor> copied, Journal journal, Spool spool) {
    if (!journal.found().isEmpty()) {
      progress.warning(
          "an earlier run was interrupted: going on after " + journal.found().size() + " layers");
    }
    Map<String, RowLayer> rowLayers = new LinkedHashMap<>();
    List<LayerWork> whole = new ArrayList<>();
    for (LayerWork item : work) {
      byRows(item)
          .ifPresentOrElse(rows -> rowLayers.put(item.layer(), rows), () -> whole.add(item));
    }
    for (LayerWork item : whole) {
      if (spool.layers().containsKey(item.layer())) {
        progress.advance(item.layer(), item.bytes());
      }
    }
    new WholeLayers(source, writers, plan.scaling(), backend, threads, progress, spool)
        .run(whole.stream().filter(item -> !spool.layers().containsKey(item.layer())).toList());
    List<String> order = work.stream().map(LayerWork::layer).toList();
    return new Assembly(
            source, plan.computePlan(), order, rowLayers, spool, copied, progress, writers)
        .write(target, journal, backend, threads);
  }

  /** The layer as one that is quantized some rows at a time, if it can be. */
  private Optional<RowLayer> byRows(LayerWork item) {
    if (!(item instanceof LayerWork.Fresh fresh)
        || writers.multiplierOfFloats(source, fresh).isPresent()) {
      return Optional.empty();
    }
    LayerWriter writer = writers.of(fresh.format());
    Scaling scaling = writers.scaling(fresh.format(), plan.scaling());
    writer.checkShape(fresh.weight());
    return writer
        .byRows(fresh.layer(), fresh.weight())
        .filter(rows -> scaling.isDefault() || rows.isFittable())
        .map(rows -> new RowLayer(fresh, rows, scaling));
  }

  /** Refuses by name what a format does not do, before anything is written. */
  private void check(List<LayerWork> work) {
    Scaling scaling = plan.scaling();
    work.stream()
        .map(LayerWork::format)
        .distinct()
        .forEach(format -> writers.of(format).validateEnvironment(backend));
    for (LayerWork item : work) {
      Optional<String> why = writers.of(item.format()).refuses(scaling);
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

  /**
   * Refuses what the disk cannot hold, as far as the formats tell it from shapes alone, before
   * hours are spent on it.
   */
  private void checkRoom(Path target, List<LayerWork> work, List<Tensor> copied) {
    double needed = copied.stream().mapToLong(tensor -> tensor.data().byteSize()).sum();
    for (LayerWork item : work) {
      needed +=
          item instanceof LayerWork.Fresh fresh
              ? writers.of(fresh.format()).targetBits(fresh.weight())
                  * fresh.weight().elements()
                  / 8
              : 0;
    }
    Path directory = target.toAbsolutePath().getParent();
    Path begun = Journal.beside(target, ".part");
    try {
      if (directory == null || !Files.isDirectory(directory)) {
        return; // said by who creates the file
      }
      long free = Files.getFileStore(directory).getUsableSpace();
      double room = free + (double) (Files.exists(begun) ? Files.size(begun) : 0);
      if (free > 0 && room < needed) { // some file systems do not tell
        throw new GatunException(
            target
                + ": found "
                + free
                + " bytes free, expected at least "
                + (long) needed
                + " for what will be written");
      }
    } catch (IOException e) {
      throw OutputFile.failed(target, e);
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
    boolean convolution =
        plan.convolutions() && tensor.name().endsWith(WEIGHT) && tensor.shape().size() == 4;
    return convolution || isCandidate(tensor)
        ? plan.format(layerOf(tensor), tensor)
            .filter(format -> writers.of(format).isQuantized(tensor))
        : Optional.empty();
  }

  private static boolean isConvolution(LayerWork item) {
    return item instanceof LayerWork.Fresh fresh && fresh.weight().shape().size() == 4;
  }

  /** Whether a tensor may be the weight of a linear layer. */
  static boolean isCandidate(Tensor tensor) {
    return tensor.name().endsWith(WEIGHT) && tensor.shape().size() == 2;
  }

  /** The plain name of a weight's layer. */
  static String layerOf(Tensor weight) {
    return weight.name().substring(0, weight.name().length() - WEIGHT.length());
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
