package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.TorchAoLayout;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Optional;

/**
 * One weight in torchao's 4-bit groups. torchao takes BF16 weights only: others are rounded to BF16
 * first.
 */
final class TorchAoInt4 {
  private static final Encoding BF16 = Encoding.BF16;
  private static final int LEVELS = 15;
  private static final int MIDDLE = 8;

  /** The smallest scale of tiles: BF16's smallest normal number. */
  private static final float SMALLEST = 0x1p-126f;

  /** The smallest range of rows. */
  private static final float SMALLEST_RANGE = 1e-6f;

  /** What the tiles' kernel takes: K a multiple of this, N of 8. */
  private static final long TILE_COLUMNS = 1024;

  private static final long TILE_ROWS = 8;

  private final String layer;
  private final Tensor weight;
  private final long group;
  private final Arena arena;
  private final Encoding type;
  private final long n;
  private final long k;

  TorchAoInt4(String layer, Tensor weight, long group, Arena arena) {
    this.layer = layer;
    this.weight = weight;
    this.group = group;
    this.arena = arena;
    this.type = Parts.encoding(weight);
    this.n = weight.shape().get(0);
    this.k = weight.shape().get(1);
  }

  /**
   * For the tinygemm kernel, every operation rounded to BF16: {@code scale = (max - min) / 15},
   * {@code zero = min + 8 · scale}, {@code code = round((w - (zero - 8 · scale)) / scale)}; the
   * weight is padded with zeros.
   *
   * @param hqq scales and zeros by half-quadratic optimization instead
   */
  LayerWriter.Quantized tiles(boolean hqq) {
    LayerWriter.Blank made = tiles(layer, n, k, group, arena);
    Tensor pairs = made.tensors().get(1);
    Matrix matrix = made.matrix();
    long across = pairs.shape().get(0);
    long paddedRows = pairs.shape().get(1);
    TorchAoHqq.Zeros zeros = hqq ? new TorchAoHqq(this::value, n, k, group).run() : null;
    for (long row = 0; row < paddedRows; row++) {
      for (long g = 0; g < across; g++) {
        boolean real = row < n && g * group < k;
        long pair = 2 * (g * paddedRows + row);
        if (zeros != null) {
          float inverse = real ? zeros.inverse(row, g) : TorchAoHqq.LARGEST_INVERSE;
          float zero = real ? zeros.zero(row, g) : 0;
          float scale = 1 / inverse;
          put(pairs, pair, scale, (MIDDLE - zero) * scale);
          for (long c = g * group; real && c < (g + 1) * group; c++) {
            float q = value(row, c) * inverse + zero;
            MatrixValues.putCode(matrix, row, c, Codebooks.encode(Encoding.U4, q));
          }
          continue;
        }
        Range range = real ? range(row, g) : new Range(0, 0);
        float width = round(range.max - range.min);
        float scale = Math.max(round(width / LEVELS), SMALLEST);
        float middle = round(MIDDLE * scale);
        float zero = round(range.min + middle);
        put(pairs, pair, scale, zero);
        float lowest = round(zero - middle);
        for (long c = g * group; real && c < (g + 1) * group; c++) {
          float q = round(round(value(row, c) - lowest) / scale);
          MatrixValues.putCode(matrix, row, c, Codebooks.encode(Encoding.U4, q));
        }
      }
    }
    return made.finished();
  }

  /** The tensors of a tile-packed weight, without numbers yet. */
  static LayerWriter.Blank tiles(String layer, long n, long k, long group, Arena arena) {
    long paddedRows = Math.ceilDiv(n, TILE_ROWS) * TILE_ROWS;
    long paddedColumns = Math.ceilDiv(k, TILE_COLUMNS) * TILE_COLUMNS;
    long across = paddedColumns / group;
    String prefix = TorchAoTensors.prefix(layer + Parts.WEIGHT);
    Tensor codes =
        WriterSupport.allocate(
            arena,
            prefix + "qdata",
            DType.I32,
            paddedRows / TILE_ROWS,
            paddedColumns / 128,
            32L,
            4L);
    Tensor pairs =
        WriterSupport.allocate(
            arena, prefix + "scale_and_zero", DType.BF16, across, paddedRows, 2L);
    long rowBytes = paddedColumns * TILE_ROWS / 2;
    Matrix matrix =
        new TorchAoLayout("Int4TilePackedTo4dTensor", Encoding.U4)
            .tiles(n, k, codes.data(), rowBytes, group, pairs.data(), paddedRows);
    return LayerWriter.Blank.of(List.of(codes, pairs), matrix);
  }

  private static void put(Tensor pairs, long at, float scale, float zero) {
    Numbers.put(BF16, pairs.data(), at, scale);
    Numbers.put(BF16, pairs.data(), at + 1, zero);
  }

  /**
   * In rows, in F32: {@code scale = max(max - min, 1e-6) / 15}, {@code zero = min + 8 · scale},
   * {@code code = round((w - min) / scale) - 8}; scales and zeros are rounded to BF16 afterwards.
   */
  LayerWriter.Quantized plain() {
    LayerWriter.Blank made = plain(layer, n, k, group, arena);
    Matrix matrix = made.matrix();
    Tensor scales = made.tensors().get(1);
    Tensor zeros = made.tensors().get(2);
    long across = k / group;
    for (long row = 0; row < n; row++) {
      for (long g = 0; g < across; g++) {
        Range range = range(row, g);
        float scale = Math.max(range.max - range.min, SMALLEST_RANGE) / LEVELS;
        Numbers.put(BF16, scales.data(), g * n + row, scale);
        Numbers.put(BF16, zeros.data(), g * n + row, range.min + MIDDLE * scale);
        for (long c = g * group; c < (g + 1) * group; c++) {
          int level = Codebooks.encode(Encoding.U4, (value(row, c) - range.min) / scale);
          MatrixValues.putCode(matrix, row, c, (level - MIDDLE) & 0xF);
        }
      }
    }
    return made.finished();
  }

  /** The tensors of a weight in rows, without numbers yet. */
  static LayerWriter.Blank plain(String layer, long n, long k, long group, Arena arena) {
    long across = k / group;
    String prefix = TorchAoTensors.prefix(layer + Parts.WEIGHT);
    Tensor codes = WriterSupport.allocate(arena, prefix + "qdata", DType.I8, n, k / 2);
    Tensor scales = WriterSupport.allocate(arena, prefix + "scale", DType.BF16, across, n);
    Tensor zeros = WriterSupport.allocate(arena, prefix + "zero_point", DType.BF16, across, n);
    Matrix matrix =
        new TorchAoLayout("Int4Tensor", Encoding.I4)
            .transposed(
                n,
                k,
                codes.data(),
                group,
                Parts.values(scales),
                Optional.empty(),
                Optional.of(Parts.values(zeros)));
    return LayerWriter.Blank.of(List.of(codes, scales, zeros), matrix);
  }

  private record Range(float min, float max) {}

  private Range range(long row, long g) {
    float min = Float.POSITIVE_INFINITY;
    float max = Float.NEGATIVE_INFINITY;
    for (long c = g * group; c < (g + 1) * group; c++) {
      float v = value(row, c);
      min = Math.min(min, v);
      max = Math.max(max, v);
    }
    return new Range(min, max);
  }

  private float value(long row, long column) {
    return round(Numbers.get(type, weight.data(), row * k + column));
  }

  private static float round(float value) {
    return HalfFloat.round(BF16, value);
  }
}
