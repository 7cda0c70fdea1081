package dev.gatun.checkpoint;

import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.codec.Magnitudes;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.LongFunction;

/**
 * For formats with one scale for a whole weight, which follows from the largest magnitude: it is
 * looked for first, and then rows are quantized as {@link SlicedRows} are.
 */
final class SharedScaleRows implements RowQuantizer {
  /** What a format does with the largest magnitude. */
  interface Scheme {
    /**
     * Tensors for so many rows, with the scale filled in.
     *
     * @param largest of the whole weight
     */
    LayerWriter.Blank blank(long rows, float largest, Backend backend, Arena arena);

    /** Fills in what is made of rows, with the scale that is there. */
    void fill(LayerWriter.Blank blank, Tensor rows, Backend backend);
  }

  private final long n;
  private final long step;
  private final LongFunction<List<SafetensorsWriter.Entry>> tensors;
  private final Set<String> sliced;
  private final Scheme scheme;

  /** Bits of the largest magnitude seen: they are ordered as the magnitudes are, NaN above all. */
  private final AtomicInteger largest = new AtomicInteger();

  /**
   * Of a weight of n rows.
   *
   * @param step rows after which every tensor that is made of rows is at a whole byte and scale
   * @param tensors that stand for a weight of so many rows
   * @param sliced the names of those that are made of rows
   */
  SharedScaleRows(
      long n,
      long step,
      LongFunction<List<SafetensorsWriter.Entry>> tensors,
      Set<String> sliced,
      Scheme scheme) {
    this.n = n;
    this.step = step;
    this.tensors = tensors;
    this.sliced = sliced;
    this.scheme = scheme;
  }

  @Override
  public List<SafetensorsWriter.Entry> entries() {
    return tensors.apply(n);
  }

  @Override
  public long step() {
    return step;
  }

  @Override
  public boolean looksFirst() {
    return true;
  }

  @Override
  public void look(Tensor rows) {
    float most = Magnitudes.largest(Parts.encoding(rows), rows.data(), 0, rows.elements());
    largest.accumulateAndGet(Float.floatToRawIntBits(most), Math::max);
  }

  private LayerWriter.Blank blank(long rows, Backend backend, Arena arena) {
    return scheme.blank(rows, Float.intBitsToFloat(largest.get()), backend, arena);
  }

  @Override
  public Piece quantize(long first, Tensor rows, Backend backend, Arena arena) {
    LayerWriter.Blank blank = blank(rows.shape().get(0), backend, arena);
    scheme.fill(blank, rows, backend);
    List<Part> parts = new ArrayList<>();
    List<SafetensorsWriter.Entry> before = first == 0 ? List.of() : tensors.apply(first);
    for (Tensor tensor : blank.tensors()) {
      if (sliced.contains(tensor.name())) {
        long offset =
            before.stream()
                .filter(entry -> entry.name().equals(tensor.name()))
                .mapToLong(SafetensorsWriter.Entry::byteSize)
                .sum();
        parts.add(new Part(tensor.name(), offset, tensor.data()));
      }
    }
    return new Piece(parts, blank.finished().matrix());
  }

  /** All but what is made of rows. */
  @Override
  public List<Tensor> rest(Backend backend, Arena arena) {
    List<Tensor> rest = new ArrayList<>(blank(Math.min(1, n), backend, arena).tensors());
    rest.removeIf(tensor -> sliced.contains(tensor.name()));
    return rest;
  }
}
