package dev.gatun.quantize;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.Backend;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Turns a quantized checkpoint into one safetensors file of plain floats, with the bytes that each
 * format's own library would give. Every weight is written under its layer's plain name, {@code
 * X.weight}; other tensors are copied unchanged; what belongs to the quantization only (scales,
 * markers) is dropped. What x is multiplied by before the weight is no part of that in any library:
 * it is kept as {@code X.pre_quant_scale}, which {@link Checkpoint#linear} applies.
 */
public final class Dequantizer {
  private final Checkpoint source;
  private final Optional<Encoding> dtype;
  private final Backend backend;
  private final ProgressListener progress;

  private Dequantizer(
      Checkpoint source, Optional<Encoding> dtype, Backend backend, ProgressListener progress) {
    this.source = source;
    this.dtype = dtype;
    this.backend = backend;
    this.progress = progress;
  }

  /**
   * Dequantizes a checkpoint a few rows at a time: memory does not grow with it.
   *
   * @param target the safetensors file to write
   * @param dtype F32, F16 or BF16 for every quantized weight; empty: each in the type that its
   *     library gives
   * @param backend who dequantizes
   * @throws GatunException when a layer is of a format that is not supported or has a scale that is
   *     not finite, or the file cannot be written; nothing is left behind then
   */
  public static Report dequantize(
      Checkpoint source,
      Path target,
      Optional<Encoding> dtype,
      Backend backend,
      ProgressListener progress) {
    dtype.ifPresent(Dequantizer::dtypeOf);
    for (Map.Entry<String, String> layer : source.unsupported().entrySet()) {
      throw new GatunException(
          source.path() + ": layer '" + layer.getKey() + "': " + layer.getValue());
    }
    source
        .unclaimed()
        .forEach(
            (name, why) -> progress.warning("tensor '" + name + "' is copied as it is: " + why));
    return new Dequantizer(source, dtype, backend, progress).run(target);
  }

  private Report run(Path target) {
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    Map<String, QuantizedTensor> weights = new LinkedHashMap<>();
    for (String layer : source.layers().keySet()) {
      QuantizedTensor weight = inRequestedType(source.quantized(layer));
      String name = source.plain().containsKey(layer + ".weight") ? layer : layer + ".weight";
      weights.put(name, weight);
      entries.add(new SafetensorsWriter.Entry(name, dtypeOf(outType(weight)), weight.shape()));
    }
    List<Tensor> copied = new ArrayList<>(source.plain().values());
    for (QuantizedTensor weight : source.layers().values()) {
      weight.inputMultiplier().ifPresent(part -> copied.add(kept(weight, part)));
    }
    copied.forEach(tensor -> entries.add(SafetensorsWriter.Entry.of(tensor)));
    long before = source.tensors().values().stream().mapToLong(t -> t.data().byteSize()).sum();
    progress.start(before);
    try (SafetensorsWriter out = SafetensorsWriter.create(target, entries, metadata())) {
      weights.forEach((name, weight) -> dequantize(name, weight, out));
      for (Tensor tensor : copied) {
        out.write(tensor.name(), tensor.data());
        progress.advance(tensor.name(), tensor.data().byteSize());
      }
      out.commit();
    }
    long after = entries.stream().mapToLong(SafetensorsWriter.Entry::byteSize).sum();
    return new Report(List.of(), weights.size(), copied.size(), before, after, List.of(target));
  }

  /** What x is multiplied by is no part of the library's dequantized weight. */
  private Tensor kept(QuantizedTensor weight, Tensor multiplier) {
    String name = weight.name() + Checkpoint.INPUT_MULTIPLIER;
    progress.warning(
        "layer '" + weight.name() + "': its input is still to be multiplied by '" + name + "'");
    return new Tensor(name, multiplier.dtype(), multiplier.shape(), multiplier.data());
  }

  private QuantizedTensor inRequestedType(QuantizedTensor weight) {
    Optional<CheckpointFormat> format = source.format(weight.name());
    return dtype.isPresent() && format.isPresent()
        ? format.get().withDtype(weight, dtype.get())
        : weight;
  }

  private Encoding outType(QuantizedTensor weight) {
    return dtype.orElse(weight.dtype());
  }

  private void dequantize(String name, QuantizedTensor weight, SafetensorsWriter out) {
    long n = weight.matrix().n();
    Encoding type = outType(weight);
    long bytesPerRow = weight.matrix().k() * type.bits() / 8;
    long step = Math.min(RowChunks.rows(bytesPerRow), Math.max(1, n));
    source.verifyFiles();
    try (Arena arena = Arena.ofShared()) {
      MemorySegment buffer = arena.allocate(Math.max(1, step * bytesPerRow), 64);
      for (long row = 0; row < n; row += step) {
        long rows = Math.min(step, n - row);
        MemorySegment chunk = buffer.asSlice(0, rows * bytesPerRow);
        backend.dequantize(weight.matrix(), row, rows, chunk, type);
        out.write(name, row * bytesPerRow, chunk);
      }
    }
    source.release(weight);
    progress.advance(weight.name(), weight.byteSize());
  }

  private Map<String, String> metadata() {
    Map<String, String> metadata = new LinkedHashMap<>(source.metadata());
    Checkpoint.formats().forEach(format -> metadata.keySet().removeAll(format.metadataKeys()));
    return metadata;
  }

  private static DType dtypeOf(Encoding type) {
    return switch (type) {
      case F32 -> DType.F32;
      case F16 -> DType.F16;
      case BF16 -> DType.BF16;
      default ->
          throw new GatunException("cannot dequantize to " + type + ", expected F32, F16 or BF16");
    };
  }
}
