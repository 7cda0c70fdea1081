package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.ReferenceBackend;
import dev.gatun.kernel.codec.Numbers;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.LongStream;

/** A small checkpoint of random tensors, for formats that are tested against their formulas. */
final class RandomTensors {
  private final Random random;
  private final List<Tensor> tensors = new ArrayList<>();

  RandomTensors(long seed) {
    this.random = new Random(seed);
  }

  /** What will be written; may be changed. */
  List<Tensor> tensors() {
    return tensors;
  }

  /** Random bytes; changing them changes the tensor. */
  byte[] put(String name, DType dtype, int bytes, long... shape) {
    byte[] data = new byte[bytes];
    random.nextBytes(data);
    put(name, dtype, data, shape);
    return data;
  }

  /** These bytes. */
  void put(String name, DType dtype, byte[] data, long... shape) {
    List<Long> sizes = LongStream.of(shape).boxed().toList();
    tensors.add(new Tensor(name, dtype, sizes, MemorySegment.ofArray(data)));
  }

  /** Numbers of -0.5 to 0.5 of a float type, as they are stored. */
  float[] floats(String name, DType dtype, long... shape) {
    int count = (int) LongStream.of(shape).reduce(1, Math::multiplyExact);
    Encoding type = dtype.encoding().orElseThrow();
    MemorySegment data = MemorySegment.ofArray(put(name, dtype, count * type.bits() / 8, shape));
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      Numbers.put(type, data, i, random.nextFloat() - 0.5f);
      values[i] = Numbers.get(type, data, i);
    }
    return values;
  }

  /** Writes {@code model.safetensors} into a directory. */
  Path write(Path directory, Map<String, String> metadata) throws IOException {
    Files.createDirectories(directory);
    Path path = directory.resolve("model.safetensors");
    try (SafetensorsWriter out =
        SafetensorsWriter.create(
            path, tensors.stream().map(SafetensorsWriter.Entry::of).toList(), metadata)) {
      tensors.forEach(t -> out.write(t.name(), t.data()));
      out.commit();
    }
    return path;
  }

  /** A layer's numbers by the reference. */
  static float[] dequantized(QuantizedTensor layer) {
    float[] values = new float[Math.toIntExact(layer.elements())];
    new ReferenceBackend()
        .dequantize(
            layer.matrix(), 0, layer.matrix().n(), MemorySegment.ofArray(values), Encoding.F32);
    return values;
  }
}
