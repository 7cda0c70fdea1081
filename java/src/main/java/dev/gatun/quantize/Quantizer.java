package dev.gatun.quantize;

import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.OutputFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.checkpoint.TensorFileWriter;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.PlainLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * Writes a whole checkpoint in a quantized format, layer by layer: memory holds one layer at a
 * time, however large the checkpoint is.
 */
public final class Quantizer {
  private static final String WEIGHT = ".weight";

  private final Checkpoint source;
  private final String format;
  private final LayerWriter writer;
  private final NameFilter filter;
  private final Backend backend;
  private final ProgressListener progress;
  private final List<LayerReport> layers = new ArrayList<>();
  private final List<LayerWriter.Written> written = new ArrayList<>();
  private final List<Tensor> copied = new ArrayList<>();
  private long bytesAfter;

  private Quantizer(
      Checkpoint source,
      String format,
      NameFilter filter,
      Backend backend,
      ProgressListener progress) {
    this.source = source;
    this.format = format;
    this.writer = writer(format);
    this.filter = filter;
    this.backend = backend;
    this.progress = progress;
  }

  /** Every format that can be written, each with one line of help. */
  public static Map<String, String> formats() {
    Map<String, String> all = new TreeMap<>();
    Checkpoint.formats().forEach(format -> all.putAll(format.writes()));
    return all;
  }

  /**
   * Quantizes a checkpoint.
   *
   * @param source of plain floats
   * @param target the file to write; files that the format keeps beside it go into its directory
   * @param format one of {@link #formats()}
   * @param filter which layers; only two-dimensional float tensors named {@code *.weight} that the
   *     format accepts are candidates, everything else is copied
   * @param backend who quantizes
   * @throws GatunException when the format is unknown, the checkpoint is quantized already, no
   *     layer is left to quantize, a weight cannot be quantized, or the file cannot be written;
   *     nothing is left behind then
   */
  public static Report quantize(
      Checkpoint source,
      Path target,
      String format,
      NameFilter filter,
      Backend backend,
      ProgressListener progress) {
    Quantizer quantizer = new Quantizer(source, format, filter, backend, progress);
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
    return quantizer.run(target);
  }

  /**
   * Writes a quantized checkpoint in another format: layers that are quantized stay so, everything
   * else is copied. Where the format can hold a layer's codes and scales they are laid out anew;
   * else the layer is dequantized, as its own library does it, and quantized again. A checkpoint of
   * plain floats is quantized.
   *
   * @param target the file to write; files that the format keeps beside it go into its directory
   * @param format one of {@link #formats()}
   * @throws GatunException when the format is unknown, a layer cannot be read or quantized, or the
   *     file cannot be written; nothing is left behind then
   */
  public static Report convert(
      Checkpoint source, Path target, String format, Backend backend, ProgressListener progress) {
    NameFilter filter = source.layers().isEmpty() ? NameFilter.DEFAULT : NameFilter.NOTHING;
    Quantizer quantizer = new Quantizer(source, format, filter, backend, progress);
    for (Map.Entry<String, String> layer : source.unsupported().entrySet()) {
      throw new GatunException(
          source.path() + ": layer '" + layer.getKey() + "': " + layer.getValue());
    }
    source
        .unclaimed()
        .forEach(
            (name, why) -> progress.warning("tensor '" + name + "' is copied as it is: " + why));
    return quantizer.run(target);
  }

  private static LayerWriter writer(String name) {
    for (CheckpointFormat format : Checkpoint.formats()) {
      if (format.writes().containsKey(name)) {
        return format.writer(name);
      }
    }
    throw new GatunException(
        "no format '" + name + "' to write, expected one of " + formats().keySet());
  }

  private Report run(Path target) {
    long bytesBefore = source.tensors().values().stream().mapToLong(t -> t.data().byteSize()).sum();
    progress.start(bytesBefore);
    try (Spool spool = Spool.create(target)) {
      for (String layer : source.layers().keySet()) {
        convert(source.quantized(layer), spool);
      }
      for (Tensor tensor : source.plain().values()) {
        if (isCandidate(tensor)) {
          quantize(tensor, spool);
        } else {
          copied.add(tensor);
        }
      }
      if (layers.isEmpty()) {
        throw new GatunException(
            source.path()
                + ": found no weight to quantize to "
                + format
                + ", expected two-dimensional float tensors *.weight that the filters let through");
      }
      List<Path> files = assemble(target, spool);
      return new Report(
          List.copyOf(layers), layers.size(), copied.size(), bytesBefore, bytesAfter, files);
    }
  }

  private boolean isCandidate(Tensor tensor) {
    return tensor.name().endsWith(WEIGHT)
        && tensor.shape().size() == 2
        && writer.accepts(tensor)
        && filter.accepts(layerOf(tensor));
  }

  private static String layerOf(Tensor weight) {
    return weight.name().substring(0, weight.name().length() - WEIGHT.length());
  }

  private void quantize(Tensor weight, Spool spool) {
    source.verifyFiles();
    try (Arena arena = Arena.ofShared()) {
      LayerWriter.Quantized quantized = writer.quantize(layerOf(weight), weight, backend, arena);
      keep(
          layerOf(weight),
          quantized,
          weight,
          weight.data().byteSize(),
          LayerReport.How.QUANTIZED,
          spool);
    }
  }

  /** A layer that is quantized already. */
  private void convert(QuantizedTensor weight, Spool spool) {
    source.verifyFiles();
    try (Arena arena = Arena.ofShared()) {
      Tensor plain = dequantized(weight, arena);
      Optional<LayerWriter.Quantized> same = writer.relay(weight.name(), weight, arena);
      if (same.isPresent()) {
        keep(weight.name(), same.get(), plain, weight.byteSize(), LayerReport.How.LOSSLESS, spool);
      } else if (plain.shape().size() == 2 && writer.accepts(plain)) {
        LayerWriter.Quantized quantized = writer.quantize(weight.name(), plain, backend, arena);
        keep(
            weight.name(), quantized, plain, weight.byteSize(), LayerReport.How.REQUANTIZED, spool);
      } else {
        Matrix floats =
            new PlainLayout(weight.dtype())
                .matrix(weight.matrix().n(), weight.matrix().k(), plain.data());
        LayerWriter.Quantized unchanged = new LayerWriter.Quantized(List.of(plain), floats);
        keep(
            weight.name(), unchanged, plain, weight.byteSize(), LayerReport.How.DEQUANTIZED, spool);
      }
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
      String layer,
      LayerWriter.Quantized quantized,
      Tensor before,
      long bytesBefore,
      LayerReport.How how,
      Spool spool) {
    long bytes = 0;
    for (Tensor tensor : quantized.tensors()) {
      spool.add(tensor);
      bytes += tensor.data().byteSize();
    }
    if (how != LayerReport.How.DEQUANTIZED) {
      written.add(
          new LayerWriter.Written(
              layer,
              format,
              before.dtype(),
              before.shape(),
              quantized.tensors().stream().map(SafetensorsWriter.Entry::of).toList()));
    }
    ErrorMeter meter = ErrorMeter.measure(quantized.matrix(), before, backend);
    boolean rounded = how == LayerReport.How.QUANTIZED || how == LayerReport.How.REQUANTIZED;
    if (rounded && !meter.isFinite()) {
      throw new GatunException(
          source.path()
              + ": tensor '"
              + before.name()
              + "': found NaN or infinity, expected finite numbers");
    }
    LayerReport report = meter.report(layer, quantized.matrix(), bytesBefore, bytes, how);
    layers.add(report);
    bytesAfter += bytes;
    progress.advance(layer, bytesBefore);
    progress.layer(report);
  }

  private List<Path> assemble(Path target, Spool spool) {
    List<SafetensorsWriter.Entry> entries = new ArrayList<>(spool.entries());
    copied.forEach(tensor -> entries.add(SafetensorsWriter.Entry.of(tensor)));
    Map<String, String> metadata = new LinkedHashMap<>(source.metadata());
    Checkpoint.formats().forEach(known -> metadata.keySet().removeAll(known.metadataKeys()));
    metadata.putAll(writer.metadata(written, copied.stream().map(Tensor::name).toList()));
    List<Path> files = new ArrayList<>(List.of(target));
    List<OutputFile> sidecars = new ArrayList<>();
    try (TensorFileWriter out = writer.create(target, entries, source, metadata)) {
      spool.writeTo(out);
      for (Tensor tensor : copied) {
        out.write(tensor.name(), tensor.data());
        bytesAfter += tensor.data().byteSize();
        progress.advance(tensor.name(), tensor.data().byteSize());
      }
      writer
          .sidecars(written)
          .forEach(
              (name, text) -> {
                OutputFile sidecar = OutputFile.create(target.resolveSibling(name));
                sidecars.add(sidecar);
                sidecar.write(0, MemorySegment.ofArray(text.getBytes(StandardCharsets.UTF_8)));
                sidecar.force();
                files.add(sidecar.target());
              });
      out.force();
      sidecars.forEach(OutputFile::commit);
      out.rename();
    } finally {
      sidecars.forEach(OutputFile::close);
    }
    return files;
  }
}
