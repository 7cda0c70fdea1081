package dev.gatun.checkpoint;

import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.codec.Magnitudes;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * For formats with one scale for a whole weight, which follows from the largest magnitude: it is
 * looked for first, and then rows are codes and nothing else.
 */
final class SharedScaleRows implements RowQuantizer {
  /** What a format does with the largest magnitude. */
  interface Scheme {
    /**
     * Tensors for so many rows, with the scale filled in; their codes are the first.
     *
     * @param largest of the whole weight
     */
    LayerWriter.Blank blank(long rows, float largest, Backend backend, Arena arena);

    /** Fills in codes with the scale that is there. */
    void fill(LayerWriter.Blank blank, Tensor rows, Backend backend);
  }

  private final long n;
  private final List<SafetensorsWriter.Entry> entries;
  private final String codes;
  private final Scheme scheme;

  /** Bits of the largest magnitude seen: they are ordered as the magnitudes are, NaN above all. */
  private final AtomicInteger largest = new AtomicInteger();

  /**
   * @param codes the name of the tensor that is made of rows
   */
  SharedScaleRows(long n, List<SafetensorsWriter.Entry> entries, String codes, Scheme scheme) {
    this.n = n;
    this.entries = entries;
    this.codes = codes;
    this.scheme = scheme;
  }

  @Override
  public List<SafetensorsWriter.Entry> entries() {
    return entries;
  }

  @Override
  public long step() {
    return 1;
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
    for (Tensor tensor : blank.tensors()) {
      if (tensor.name().equals(codes)) {
        long bytesPerRow = tensor.data().byteSize() / rows.shape().get(0);
        parts.add(new Part(codes, first * bytesPerRow, tensor.data()));
      }
    }
    return new Piece(parts, blank.finished().matrix());
  }

  /** Of a weight without rows: all but the codes. */
  @Override
  public List<Tensor> rest(Backend backend, Arena arena) {
    List<Tensor> rest = new ArrayList<>(blank(Math.min(1, n), backend, arena).tensors());
    rest.removeIf(tensor -> tensor.name().equals(codes));
    return rest;
  }
}
