package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;

/**
 * optimum-quanto's 8-bit weights: {@code scale · code} in the scale's type, one scale per row or
 * one for all.
 *
 * @param encoding I8, F8_E4M3, F8_E4M3FNUZ or F8_E5M2
 * @param perChannel one scale per row; else one per tensor
 */
public record QuantoBytesLayout(Encoding encoding, boolean perChannel) implements Layout {
  @Override
  public String name() {
    return "quanto." + qtype();
  }

  @Override
  public String describe() {
    return (encoding == Encoding.I8 ? "8-bit integer" : "8-bit float " + encoding)
        + (perChannel ? ", one scale per row" : ", one scale per tensor");
  }

  /** quanto's name of the type: {@code qint8}, {@code qfloat8_e4m3fn} … */
  public String qtype() {
    return switch (encoding) {
      case I8 -> "qint8";
      case F8_E4M3 -> "qfloat8_e4m3fn";
      case F8_E4M3FNUZ -> "qfloat8_e4m3fnuz";
      case F8_E5M2 -> "qfloat8_e5m2";
      default ->
          throw new IllegalStateException(encoding + " is not a type of quanto's 8-bit weights");
    };
  }

  /**
   * The weight as a matrix; the type of the scales is what the library computes in and dequantizes
   * to.
   */
  public Matrix matrix(long n, long k, MemorySegment codes, Matrix.Values scales) {
    Granularity granularity = perChannel ? Granularity.perChannel(k) : Granularity.perTensor(n, k);
    return Matrix.builder(n, k, encoding, codes)
        .granularity(granularity)
        .scales(scales)
        .arithmetic(scales.type())
        .result(scales.type())
        .build();
  }
}
