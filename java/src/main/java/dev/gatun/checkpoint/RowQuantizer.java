package dev.gatun.checkpoint;

import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.ScaleFitter;
import dev.gatun.kernel.Scaling;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;

/**
 * Quantizes one weight some rows at a time, so that neither it nor its codes ever lie in memory
 * whole, and any number of threads share in it. The bytes are those of {@link LayerWriter#quantize}
 * however the rows are cut.
 */
public interface RowQuantizer {
  /**
   * Bytes of a tensor of the file.
   *
   * @param tensor its name
   * @param offset from its first byte
   */
  record Part(String tensor, long offset, MemorySegment bytes) {}

  /**
   * Rows that are quantized.
   *
   * @param parts what stands for them in the file
   * @param matrix these rows alone: to measure the error
   */
  record Piece(List<Part> parts, Matrix matrix) {}

  /** Every tensor that will stand for the weight; their sizes follow from its shape. */
  List<SafetensorsWriter.Entry> entries();

  /** Pieces begin at multiples of so many rows. */
  long step();

  /**
   * Whether all rows share a scale: then {@link #look} must have seen every one before the first is
   * quantized.
   */
  default boolean looksFirst() {
    return false;
  }

  /** Looks at some rows, in any order. */
  default void look(Tensor rows) {}

  /**
   * Quantizes some rows.
   *
   * @param first the index of the first one, a multiple of {@link #step}
   * @param rows F32, F16 or BF16, [how many, K]
   * @param arena where new memory comes from
   */
  Piece quantize(long first, Tensor rows, Backend backend, Arena arena);

  /** Whether no two pieces share a scale, so that scales and codes can be fitted to one alone. */
  default boolean isFittable() {
    return false;
  }

  /**
   * Quantizes some rows, their scales and codes chosen in a way of the caller's.
   *
   * @param scaling with the layer's own seed; not the default only where rows are fittable
   */
  default Piece quantize(long first, Tensor rows, Scaling scaling, Backend backend, Arena arena) {
    Piece piece = quantize(first, rows, backend, arena);
    Scaling own = scaling.after(first * rows.shape().get(1));
    ScaleFitter.fit(piece.matrix(), rows.data(), Parts.encoding(rows), own);
    return piece;
  }

  /** The tensors that are not made of pieces, once every row is quantized. */
  List<Tensor> rest(Backend backend, Arena arena);
}
