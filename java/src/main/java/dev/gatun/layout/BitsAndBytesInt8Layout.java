package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.ScaleOrder;
import java.lang.foreign.MemorySegment;

/**
 * bitsandbytes' LLM.int8() weights: {@code code · SCB · (1/127)} in F32, each product rounded, SCB
 * being the row's largest magnitude. Source: bitsandbytes/functional.py, int8_vectorwise_dequant.
 */
public record BitsAndBytesInt8Layout() implements Layout {
  private static final float ONE_127TH = 1f / 127f;

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
    return "8-bit integer, one F32 maximum per row";
  }

  /** The weight as a matrix. */
  public Matrix matrix(long n, long k, MemorySegment codes, MemorySegment maxima) {
    return Matrix.builder(n, k, Encoding.I8, codes)
        .granularity(Granularity.perChannel(k))
        .scales(new Matrix.Values(Encoding.F32, maxima))
        .scaleOrder(ScaleOrder.THEN_GLOBAL)
        .globalScale(ONE_127TH)
        .build();
  }
}
