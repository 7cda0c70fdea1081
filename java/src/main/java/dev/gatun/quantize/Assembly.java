package dev.gatun.quantize;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.Compute;
import dev.gatun.ComputePlan;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.OutputException;
import dev.gatun.checkpoint.OutputFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.checkpoint.TensorFileWriter;
import dev.gatun.kernel.Backend;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * Lays out the output once every size is known: tensors in the container's order, what each
 * checkpoint format wants in the metadata and in files beside it. Then has the layers quantized
 * that go straight to their places. Layers of several formats may stand in one file.
 */
final class Assembly {
  /** A layer of the output. */
  private record Layer(LayerWriter.Written written, boolean quantized) {}

  private final Checkpoint source;
  private final ComputePlan computePlan;
  private final Map<String, RowLayer> rowLayers;
  private final Spool spool;
  private final List<Layer> layers;
  private final List<Tensor> copied;
  private final ProgressListener progress;
  private final Writers writers;

  /** The layers of each checkpoint format, by its name. */
  private final Map<String, List<LayerWriter.Written>> families = new LinkedHashMap<>();

  /**
   * @param computePlan is stored where it says more than F32
   * @param order the names of all layers, in the source's order
   * @param rowLayers those of them that are still to be quantized
   * @param spool the others
   */
  Assembly(
      Checkpoint source,
      ComputePlan computePlan,
      List<String> order,
      Map<String, RowLayer> rowLayers,
      Spool spool,
      List<Tensor> copied,
      ProgressListener progress,
      Writers writers) {
    this.source = source;
    this.computePlan = computePlan;
    this.rowLayers = rowLayers;
    this.spool = spool;
    this.copied = copied;
    this.progress = progress;
    this.writers = writers;
    Map<String, Spool.Layer> spooled = spool.layers();
    this.layers = order.stream().map(name -> layer(name, spooled)).toList();
    for (Layer layer : layers) {
      List<LayerWriter.Written> family =
          families.computeIfAbsent(
              Quantizer.family(layer.written().format()).name(), name -> new ArrayList<>());
      if (layer.quantized()) {
        family.add(layer.written());
      }
    }
    if (families.size() > 1 && families.containsKey("gguf")) {
      throw new GatunException(
          source.path()
              + ": found formats "
              + families.keySet()
              + ", expected GGUF's alone or none of them: it is a container of its own");
    }
  }

  private Layer layer(String name, Map<String, Spool.Layer> spooled) {
    RowLayer rows = rowLayers.get(name);
    if (rows != null) {
      return new Layer(rows.written(), true);
    }
    Spool.Layer layer = Objects.requireNonNull(spooled.get(name));
    return new Layer(layer.written(), layer.report().how() != LayerReport.How.DEQUANTIZED);
  }

  Report write(Path target, Journal journal, Backend backend, int threads) {
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    layers.forEach(layer -> entries.addAll(layer.written().tensors()));
    List<Tensor> others = new ArrayList<>(copied);
    families.forEach((name, family) -> others.addAll(writer(name).once(family)));
    others.forEach(tensor -> entries.add(SafetensorsWriter.Entry.of(tensor)));
    List<Path> files = new ArrayList<>(List.of(target));
    List<OutputFile> sidecars = new ArrayList<>();
    LayerWriter container = writers.of(layers.getFirst().written().format());
    OutputFile file = OutputFile.resume(target, Journal.beside(target, ".part"));
    try (TensorFileWriter out = container.create(file, entries, source, metadata())) {
      try {
        files.addAll(fill(out, target, journal, backend, threads, others, sidecars));
      } catch (OutputException e) {
        if (journal.keep()) {
          out.keep();
        }
        throw e;
      }
      out.rename();
    } finally {
      sidecars.forEach(OutputFile::close);
    }
    long before = source.tensors().values().stream().mapToLong(t -> t.data().byteSize()).sum();
    long after = entries.stream().mapToLong(SafetensorsWriter.Entry::byteSize).sum();
    List<LayerReport> reports = layers.stream().map(this::report).toList();
    return new Report(reports, layers.size(), copied.size(), before, after, files);
  }

  /** Writes everything but the names of the files; returns what lies beside the checkpoint. */
  private List<Path> fill(
      TensorFileWriter out,
      Path target,
      Journal journal,
      Backend backend,
      int threads,
      List<Tensor> others,
      List<OutputFile> beside) {
    new RowLayers(source, backend, threads, progress, journal, out).run(remaining(journal, out));
    spool.layers().values().parallelStream().forEach(layer -> spool.writeTo(layer, out));
    for (Tensor tensor : others) {
      Quantizer.copy(source, tensor, out);
      progress.advance(tensor.name(), tensor.data().byteSize());
    }
    sidecars()
        .forEach(
            (name, text) -> {
              OutputFile sidecar = OutputFile.create(target.resolveSibling(name));
              beside.add(sidecar);
              sidecar.write(0, MemorySegment.ofArray(text.getBytes(StandardCharsets.UTF_8)));
              sidecar.force();
            });
    out.force();
    beside.forEach(OutputFile::commit);
    return beside.stream().map(OutputFile::target).toList();
  }

  /** The layers that an interrupted run has not written. */
  private List<RowLayer> remaining(Journal journal, TensorFileWriter out) {
    Map<String, RowLayer> left = new LinkedHashMap<>(rowLayers);
    for (ObjectNode line : journal.found()) {
      RowLayer layer = line.has("parts") ? left.get(line.path("layer").asText()) : null;
      if (layer != null && layer.restore(line, out)) {
        left.remove(layer.item().layer());
        progress.advance(layer.item().layer(), layer.item().bytes());
      }
    }
    return List.copyOf(left.values());
  }

  private LayerReport report(Layer layer) {
    String name = layer.written().layer();
    RowLayer rows = rowLayers.get(name);
    return rows != null ? rows.report() : Objects.requireNonNull(spool.layers().get(name)).report();
  }

  private Map<String, String> metadata() {
    Map<String, String> metadata = new LinkedHashMap<>(source.metadata());
    Checkpoint.formats().forEach(known -> metadata.keySet().removeAll(known.metadataKeys()));
    for (Map.Entry<String, List<LayerWriter.Written>> family : families.entrySet()) {
      metadata.putAll(
          writer(family.getKey()).metadata(family.getValue(), others(family.getValue())));
    }
    if (!computePlan.equals(ComputePlan.of(Compute.F32))) {
      metadata.put(Checkpoint.COMPUTE_PLAN, computePlan.toString());
    }
    return metadata;
  }

  /** The names of all tensors that are no part of these layers. */
  private List<String> others(List<LayerWriter.Written> family) {
    List<String> names = new ArrayList<>();
    for (Layer layer : layers) {
      if (!family.contains(layer.written())) {
        layer.written().tensors().forEach(entry -> names.add(entry.name()));
      }
    }
    copied.forEach(tensor -> names.add(tensor.name()));
    return names;
  }

  private Map<String, String> sidecars() {
    Map<String, String> files = new LinkedHashMap<>();
    families.forEach((name, family) -> files.putAll(writer(name).sidecars(family)));
    return files;
  }

  /** A writer of a checkpoint format: each of them tells all of its layers. */
  private LayerWriter writer(String family) {
    return layers.stream()
        .map(layer -> layer.written().format())
        .filter(format -> Quantizer.family(format).name().equals(family))
        .findFirst()
        .map(writers::of)
        .orElseThrow();
  }
}
