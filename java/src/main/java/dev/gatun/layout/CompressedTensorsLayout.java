package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;
import java.util.Optional;

/**
 * compressed-tensors (vLLM, llm-compressor), by the name of its compressor. {@code pack-quantized},
 * {@code int-quantized} and {@code float-quantized}: {@code (code - zero) · scale} in the scale's
 * type. {@code nvfp4-pack-quantized}: e2m1 times an e4m3 scale divided by a global one, in F32;
 * {@code mxfp4-pack-quantized}: e2m1 times a power of two. Source: compressed_tensors/compressors,
 * quantization/lifecycle/forward.py.
 *
 * @param format the compressor's name
 * @param encoding of the codes
 */
public record CompressedTensorsLayout(String format, Encoding encoding) implements Layout {
  @Override
  public String name() {
    return "compressed-tensors." + format;
  }

  @Override
  public String describe() {
    return switch (format) {
      case "nvfp4-pack-quantized" ->
          "4-bit float e2m1, one e4m3 scale per 16 weights and one per tensor";
      case "mxfp4-pack-quantized" -> "4-bit float e2m1, one power of two per 32 weights";
      default -> "codes of " + encoding + ", scales per tensor, row, group or block";
    };
  }

  /**
   * An integer or 8-bit float weight as a matrix.
   *
   * @param rowBytes bytes of a row of codes
   * @param zeros laid as the scales
   * @param zeroPoint of symmetric packed codes
   */
  public Matrix scaled(
      long n,
      long k,
      MemorySegment codes,
      long rowBytes,
      Granularity granularity,
      Matrix.Values scales,
      Optional<Matrix.Values> zeros,
      int zeroPoint,
      Optional<MemorySegment> columnGroups) {
    boolean bytes = encoding.bits() % 8 == 0 || 8 % encoding.bits() == 0;
    return Matrix.builder(n, k, encoding, codes)
        .codeOrder(bytes ? CodeOrder.LOW_FIRST : CodeOrder.WORDS, rowBytes)
        .granularity(granularity)
        .scales(scales)
        .zeros(zeros)
        .zeroPoint(zeroPoint)
        .columnGroups(columnGroups)
        .arithmetic(scales.type())
        .result(scales.type())
        .build();
  }

  /**
   * A block-scaled 4-bit float weight as a matrix; the library always gives BF16.
   *
   * @param divisor of the scales; empty for powers of two
   * @param memory for the table of divided scales
   */
  public Matrix block(
      long n,
      long k,
      MemorySegment codes,
      MemorySegment scales,
      Optional<Float> divisor,
      SegmentAllocator memory) {
    Encoding type = divisor.isPresent() ? Encoding.F8_E4M3 : Encoding.F8_E8M0;
    Matrix m =
        Matrix.builder(n, k, encoding, codes)
            .granularity(Granularity.perGroup(k, divisor.isPresent() ? 16 : 32))
            .scales(new Matrix.Values(type, scales))
            .result(Encoding.BF16)
            .build();
    return divisor.isPresent() ? ScaleTable.divided(m, divisor.get(), memory) : m;
  }
}
