package dev.gatun.quantize;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.OutputFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.checkpoint.TensorFileWriter;
import java.lang.foreign.MemorySegment;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/**
 * Lays out the output once every layer is on the spool: tensors in the container's order, what each
 * checkpoint format wants in the metadata and in files beside it. Layers of several formats may
 * stand in one file.
 */
final class Assembly {
  private final Checkpoint source;
  private final List<Spool.Layer> layers;
  private final List<Tensor> copied;
  private final ProgressListener progress;
  private final Function<String, LayerWriter> writers;

  /** The layers of each checkpoint format, by its name. */
  private final Map<String, List<LayerWriter.Written>> families = new LinkedHashMap<>();

  Assembly(
      Checkpoint source,
      List<Spool.Layer> layers,
      List<Tensor> copied,
      ProgressListener progress,
      Function<String, LayerWriter> writers) {
    this.source = source;
    this.layers = layers;
    this.copied = copied;
    this.progress = progress;
    this.writers = writers;
    for (Spool.Layer layer : layers) {
      List<LayerWriter.Written> family =
          families.computeIfAbsent(
              Quantizer.family(layer.written().format()).name(), name -> new ArrayList<>());
      if (layer.report().how() != LayerReport.How.DEQUANTIZED) {
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

  Report write(Path target, Spool spool) {
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    layers.forEach(layer -> entries.addAll(layer.written().tensors()));
    List<Tensor> others = new ArrayList<>(copied);
    families.forEach((name, family) -> others.addAll(writer(name).once(family)));
    others.forEach(tensor -> entries.add(SafetensorsWriter.Entry.of(tensor)));
    List<Path> files = new ArrayList<>(List.of(target));
    List<OutputFile> sidecars = new ArrayList<>();
    LayerWriter container = writers.apply(layers.getFirst().written().format());
    try (TensorFileWriter out = container.create(target, entries, source, metadata())) {
      layers.parallelStream().forEach(layer -> spool.writeTo(layer, out));
      for (Tensor tensor : others) {
        Quantizer.copy(source, tensor, out);
        progress.advance(tensor.name(), tensor.data().byteSize());
      }
      sidecars()
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
    long before = source.tensors().values().stream().mapToLong(t -> t.data().byteSize()).sum();
    long after = entries.stream().mapToLong(SafetensorsWriter.Entry::byteSize).sum();
    List<LayerReport> reports = layers.stream().map(Spool.Layer::report).toList();
    return new Report(reports, layers.size(), copied.size(), before, after, files);
  }

  private Map<String, String> metadata() {
    Map<String, String> metadata = new LinkedHashMap<>(source.metadata());
    Checkpoint.formats().forEach(known -> metadata.keySet().removeAll(known.metadataKeys()));
    for (Map.Entry<String, List<LayerWriter.Written>> family : families.entrySet()) {
      metadata.putAll(
          writer(family.getKey()).metadata(family.getValue(), others(family.getValue())));
    }
    return metadata;
  }

  /** The names of all tensors that are no part of these layers. */
  private List<String> others(List<LayerWriter.Written> family) {
    List<String> names = new ArrayList<>();
    for (Spool.Layer layer : layers) {
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
        .map(writers)
        .orElseThrow();
  }
}
