package dev.gatun.kernel;

import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.util.Objects;
import java.util.Optional;

/**
 * One weight matrix as it lies in memory: all that is needed to dequantize it, whatever checkpoint
 * format it came from. The Java face of {@code gatun_matrix} in {@code gatun.h}, with the same
 * definition:
 *
 * <pre>value(n, k) = round_result(round_arith((decode(code) - zero) * scale') + offset)</pre>
 *
 * where {@code scale'} is the scale rounded to {@code arithmetic}, and product and sum are each
 * rounded to {@code arithmetic}.
 *
 * @param n rows: output features
 * @param k columns: input features
 * @param encoding of the codes
 * @param highNibbleFirst for 4-bit codes: whether the element of even index is in bits 4..7
 * @param codeRowStride bytes from a row of codes to the next; 0: the flattened code stream without
 *     padding
 * @param codes the codes
 * @param granularity which weights share a scale (and a zero and an offset)
 * @param scales absent: every scale is 1
 * @param nested for scales of type U8: how they are decoded
 * @param globalScale multiplies every scale; 1 when the format has none
 * @param zeros subtracted from the code before scaling; absent: {@code zeroPoint} is
 * @param zeroPoint subtracted from every code when there are no {@code zeros}
 * @param offsets added after scaling
 * @param offsetsSubtracted whether they are subtracted instead
 * @param arithmetic F32, F16 or BF16: what the format's own library computes in
 * @param result F32, F16 or BF16: what the format's own library dequantizes to
 */
public record Matrix(
    long n,
    long k,
    Encoding encoding,
    boolean highNibbleFirst,
    long codeRowStride,
    MemorySegment codes,
    Granularity granularity,
    Optional<Values> scales,
    Optional<Nested> nested,
    float globalScale,
    Optional<Values> zeros,
    int zeroPoint,
    Optional<Values> offsets,
    boolean offsetsSubtracted,
    Encoding arithmetic,
    Encoding result) {

  /** Refuses null. */
  public Matrix {
    Objects.requireNonNull(encoding, "encoding");
    Objects.requireNonNull(codes, "codes");
    Objects.requireNonNull(granularity, "granularity");
    Objects.requireNonNull(scales, "scales");
    Objects.requireNonNull(nested, "nested");
    Objects.requireNonNull(zeros, "zeros");
    Objects.requireNonNull(offsets, "offsets");
    Objects.requireNonNull(arithmetic, "arithmetic");
    Objects.requireNonNull(result, "result");
  }

  /** An array of numbers of one type. */
  public record Values(Encoding type, MemorySegment data) {
    /** Refuses null. */
    public Values {
      Objects.requireNonNull(type, "type");
      Objects.requireNonNull(data, "data");
    }
  }

  /**
   * Double quantization: {@code scale = codebook[code] * scales[index / block] + offset}.
   *
   * @param codebook 256 floats
   * @param scales floats, one per {@code block} scale codes
   */
  public record Nested(MemorySegment codebook, MemorySegment scales, long block, float offset) {
    /** Refuses null. */
    public Nested {
      Objects.requireNonNull(codebook, "codebook");
      Objects.requireNonNull(scales, "scales");
    }
  }

  /**
   * A matrix with flattened low-nibble-first codes, F32 scales and F32 arithmetic; the rest is set
   * with the withers.
   */
  public static Matrix of(
      long n,
      long k,
      Encoding encoding,
      MemorySegment codes,
      Granularity granularity,
      Values scales) {
    return new Matrix(
        n,
        k,
        encoding,
        false,
        0,
        codes,
        granularity,
        Optional.of(scales),
        Optional.empty(),
        1f,
        Optional.empty(),
        0,
        Optional.empty(),
        false,
        Encoding.F32,
        Encoding.F32);
  }
}
