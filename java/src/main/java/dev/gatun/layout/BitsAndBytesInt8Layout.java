package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/** bitsandbytes' LLM.int8() weights: int8, one largest magnitude per row; {@code code · (SCB[row] · (1/127))} in float. */
public record BitsAndBytesInt8Layout() implements Layout {
  private static final float RECIPROCAL = 1f / 127f;

  @Override
  public String name() {
    return "bitsandbytes.int8";
  }

  @Override
  public Encoding encoding() {
    return Encoding.I8;
  }

  @Override
  public String describe() {
    return "8-bit integer, one F32 scale per row";
  }

  /** The weight as a matrix; {@code scb} holds N floats. */
  public Matrix matrix(long n, long k, MemorySegment codes, MemorySegment scb) {
    Matrix.Values scales = new Matrix.Values(Encoding.F32, scb);
    return new Matrix(
        n, k, Encoding.I8, false, 0, codes, Granularity.perChannel(k), Optional.of(scales), Optional.empty(),
        RECIPROCAL, Optional.empty(), 0, Optional.empty(), false, Encoding.F32, Encoding.F32);
  }
}
