package dev.gatun.cli;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import dev.gatun.checkpoint.SafetensorsFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** A safetensors file in the heap, to be changed and written again. */
final class TensorFile {
  final Map<String, Tensor> tensors = new LinkedHashMap<>();
  final Map<String, String> metadata = new LinkedHashMap<>();

  static TensorFile read(Path path) {
    TensorFile copy = new TensorFile();
    try (SafetensorsFile file = SafetensorsFile.open(path)) {
      file.tensors()
          .values()
          .forEach(
              t ->
                  copy.put(
                      t.name(), t.dtype(), t.shape(), t.data().toArray(ValueLayout.JAVA_BYTE)));
      copy.metadata.putAll(file.metadata());
    }
    return copy;
  }

  static TensorFile golden(String family, String name) {
    return read(Golden.file(family, name, "model.safetensors"));
  }

  /**
   * The weights that all golden files were made of, as the checkpoint of floats that the libraries
   * were given.
   */
  static TensorFile original(DType dtype) {
    TensorFile all = read(Golden.file("orig", "orig", "weights.safetensors"));
    TensorFile model = new TensorFile();
    model.metadata.put("format", "pt");
    Map.of(
            "w_to_q", "blocks.0.to_q.weight",
            "b_to_q", "blocks.0.to_q.bias",
            "w_proj", "blocks.0.proj.weight",
            "w_edge", "blocks.0.edge.weight",
            "norm_w", "blocks.0.norm.weight",
            "norm_b", "blocks.0.norm.bias",
            "out_w", "proj_out.weight")
        .forEach((from, to) -> model.putAs(to, all.tensors.get(from), dtype));
    return model;
  }

  /** A file with the golden inputs of a layer as the tensor {@code x}. */
  static TensorFile input(String layer, DType dtype) {
    TensorFile all = read(Golden.file("orig", "orig", "inputs.safetensors"));
    return new TensorFile().putAs("x", all.tensors.get("x_" + layer), dtype);
  }

  TensorFile put(String name, DType dtype, List<Long> shape, byte[] data) {
    tensors.put(name, new Tensor(name, dtype, shape, MemorySegment.ofArray(data)));
    return this;
  }

  TensorFile putAs(String name, Tensor from, DType dtype) {
    Encoding type = dtype.encoding().orElseThrow();
    byte[] data = new byte[Math.toIntExact(from.elements() * dtype.bits() / 8)];
    for (long i = 0; i < from.elements(); i++) {
      float value = Numbers.get(from.dtype().encoding().orElseThrow(), from.data(), i);
      Numbers.put(type, MemorySegment.ofArray(data), i, value);
    }
    return put(name, dtype, from.shape(), data);
  }

  TensorFile putFloats(String name, List<Long> shape, float... values) {
    byte[] data = new byte[4 * values.length];
    MemorySegment.ofArray(data).copyFrom(MemorySegment.ofArray(values));
    return put(name, DType.F32, shape, data);
  }

  float[] floats(String name) {
    Tensor tensor = tensors.get(name);
    float[] values = new float[Math.toIntExact(tensor.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = Numbers.get(tensor.dtype().encoding().orElseThrow(), tensor.data(), i);
    }
    return values;
  }

  Set<String> names() {
    return tensors.keySet();
  }

  byte[] bytes(String name) {
    return tensors.get(name).data().toArray(ValueLayout.JAVA_BYTE);
  }

  Path write(Path path) {
    List<SafetensorsWriter.Entry> entries =
        tensors.values().stream().map(SafetensorsWriter.Entry::of).toList();
    try (SafetensorsWriter writer = SafetensorsWriter.create(path, entries, metadata)) {
      tensors.forEach((name, tensor) -> writer.write(name, tensor.data()));
      writer.commit();
    }
    return path;
  }
}
