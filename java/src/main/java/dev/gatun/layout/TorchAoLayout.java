package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.ScaleOrder;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * torchao's tensor subclasses, by their names. Source: torchao/quantization/quantize_/workflows,
 * prototype/mx_formats.
 *
 * @param type the class: Int8Tensor, Float8Tensor …
 * @param encoding of the codes
 */
public record TorchAoLayout(String type, Encoding encoding) implements Layout {
  @Override
  public String name() {
    return "torchao." + type;
  }

  @Override
  public String describe() {
    return switch (type) {
      case "Int4Tensor", "Int4TilePackedTo4dTensor" ->
          "4-bit integer, one scale and one offset per group of weights";
      case "Int4PlainInt32Tensor" -> "4-bit integer, one scale and one zero point per group";
      case "MXTensor" -> encoding + ", one power of two per 32 weights";
      case "NVFP4Tensor" -> "4-bit float e2m1, one e4m3 scale per 16 weights";
      default -> "codes of " + encoding + ", one scale per block of rows x columns";
    };
  }

  /** {@code (code - zero) · scale}: one scale per block of rows × columns, laid row-major. */
  public Matrix blocks(
      long n,
      long k,
      MemorySegment codes,
      long rows,
      long columns,
      Matrix.Values scales,
      Optional<Matrix.Values> zeros,
      Encoding dtype) {
    return Matrix.builder(n, k, encoding, codes)
        .granularity(new Granularity.Tile(rows, columns, Math.ceilDiv(k, columns), 1))
        .scales(scales)
        .zeros(zeros)
        .arithmetic(scales.type())
        .result(dtype)
        .build();
  }

  /**
   * 4-bit groups whose scales are laid [K/group, N].
   *
   * @param zeros subtracted from the code, for {@code Int4PlainInt32Tensor}
   * @param offsets added after scaling, for {@code Int4Tensor}
   */
  public Matrix transposed(
      long n,
      long k,
      MemorySegment codes,
      long group,
      Matrix.Values scales,
      Optional<Matrix.Values> zeros,
      Optional<Matrix.Values> offsets) {
    Matrix.Builder b =
        Matrix.builder(n, k, encoding, codes)
            .granularity(new Granularity.Tile(1, group, 1, n))
            .scales(scales)
            .zeros(zeros)
            .result(scales.type());
    offsets.ifPresent(b::offsets);
    return b.build();
  }

  /**
   * 4-bit groups in tensor-core tiles: {@code (code - 8) · scale + zero}, both BF16 and side by
   * side in [K/group, N, 2] of the padded sizes.
   *
   * @param paddedRows N of the scales
   * @param rowBytes bytes of a row of tiles
   */
  public Matrix tiles(
      long n,
      long k,
      MemorySegment codes,
      long rowBytes,
      long group,
      MemorySegment scaleAndZero,
      long paddedRows) {
    MemorySegment zeros = scaleAndZero.asSlice(2);
    return Matrix.builder(n, k, encoding, codes)
        .codeOrder(CodeOrder.TILES_8X16, rowBytes)
        .granularity(new Granularity.Tile(1, group, 2, 2 * paddedRows))
        .scales(new Matrix.Values(Encoding.BF16, scaleAndZero))
        .zeroPoint(8)
        .offsets(new Matrix.Values(Encoding.BF16, zeros))
        .result(Encoding.BF16)
        .build();
  }

  /**
   * Block-scaled floats.
   *
   * @param scale of the whole tensor; 1 when there is none
   */
  public Matrix microscaled(
      long n,
      long k,
      MemorySegment codes,
      long block,
      Matrix.Values scales,
      boolean swizzled,
      float scale,
      Encoding dtype) {
    return Matrix.builder(n, k, encoding, codes)
        .granularity(Granularity.perGroup(k, block))
        .scales(scales)
        .scaleOrder(swizzled ? ScaleOrder.BLOCKED_128X4 : ScaleOrder.STRIDED)
        .globalScale(scale)
        .result(dtype)
        .build();
  }
}
