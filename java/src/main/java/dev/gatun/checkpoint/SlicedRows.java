package dev.gatun.checkpoint;

import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.function.LongFunction;
import java.util.stream.Collectors;

/**
 * For formats whose tensors are rows one after the other: some rows are quantized as a weight of
 * their own, and its tensors are runs of the whole weight's.
 *
 * @param n rows of the whole weight
 * @param step rows after which every tensor is at a whole byte and scale
 * @param tensors that stand for a weight of so many rows
 * @param quantize some rows
 * @param rest tensors of the whole weight that are not made of rows
 */
record SlicedRows(
    long n,
    long step,
    LongFunction<List<SafetensorsWriter.Entry>> tensors,
    Slice quantize,
    Function<Arena, List<Tensor>> rest)
    implements RowQuantizer {
  /** Quantizes rows as if they were all. */
  @FunctionalInterface
  interface Slice {
    LayerWriter.Quantized quantize(Tensor rows, Backend backend, Arena arena);
  }

  /** A weight whose tensors are all made of rows. */
  static SlicedRows of(
      Tensor weight, LongFunction<List<SafetensorsWriter.Entry>> tensors, Slice quantize) {
    return new SlicedRows(weight.shape().get(0), 1, tensors, quantize, arena -> List.of());
  }

  @Override
  public List<SafetensorsWriter.Entry> entries() {
    return tensors.apply(n);
  }

  @Override
  public boolean isFittable() {
    return true;
  }

  @Override
  public Piece quantize(long first, Tensor rows, Backend backend, Arena arena) {
    LayerWriter.Quantized quantized = quantize.quantize(rows, backend, arena);
    Map<String, Long> before =
        tensors.apply(first).stream()
            .collect(
                Collectors.toMap(SafetensorsWriter.Entry::name, SafetensorsWriter.Entry::byteSize));
    List<String> whole = rest.apply(arena).stream().map(Tensor::name).toList();
    List<Part> parts = new ArrayList<>();
    for (Tensor tensor : quantized.tensors()) {
      if (!whole.contains(tensor.name())) {
        long offset = first == 0 ? 0 : before.getOrDefault(tensor.name(), 0L);
        parts.add(new Part(tensor.name(), offset, tensor.data()));
      }
    }
    return new Piece(parts, quantized.matrix());
  }

  @Override
  public List<Tensor> rest(Backend backend, Arena arena) {
    return rest.apply(arena);
  }
}
