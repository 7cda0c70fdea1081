package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.ScaleOrder;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SegmentAllocator;

/**
 * ComfyUI's block-scaled floats, their scales in cuBLAS' tiles of 128 × 4. {@code nvfp4}: E2M1, the
 * first code of a byte in its high bits, one e4m3 scale per 16 weights times one for the tensor,
 * all in the type that is asked for. {@code mxfp8}: e4m3 with a power of two per 32 weights, in
 * F32. Source: comfy-kitchen, TensorCoreNVFP4Layout and TensorCoreMXFP8Layout.
 *
 * @param encoding F4_E2M1 or F8_E4M3
 */
public record ComfyBlockLayout(Encoding encoding) implements Layout {
  @Override
  public String name() {
    return isFp4() ? "comfyui.nvfp4" : "comfyui.mxfp8";
  }

  @Override
  public String describe() {
    return isFp4()
        ? "4-bit float e2m1, one e4m3 scale per 16 weights and one per tensor"
        : "8-bit float e4m3fn, one power of two per 32 weights";
  }

  private boolean isFp4() {
    return encoding == Encoding.F4_E2M1;
  }

  /** Weights of a row that share a scale; rows and columns are padded to a multiple of it. */
  public long block() {
    return isFp4() ? 16 : 32;
  }

  /** Whether it is computed in the type that is asked for. */
  public boolean computesInResult() {
    return isFp4();
  }

  /**
   * The weight as a matrix.
   *
   * @param n rows that count, of those that are stored
   * @param k columns that count
   * @param rowBytes bytes of a stored row of codes
   * @param scales codes of e4m3 or of powers of two, tiled
   * @param scale of the whole tensor; 1 for mxfp8
   * @param memory for the tables that a rare scale needs
   */
  public Matrix matrix(
      long n,
      long k,
      long rowBytes,
      MemorySegment codes,
      MemorySegment scales,
      float scale,
      Encoding dtype,
      SegmentAllocator memory) {
    Matrix m =
        Matrix.builder(n, k, encoding, codes)
            .codeOrder(isFp4() ? CodeOrder.HIGH_FIRST : CodeOrder.LOW_FIRST, rowBytes)
            .granularity(Granularity.perGroup(k, block()))
            .scales(new Matrix.Values(isFp4() ? Encoding.F8_E4M3 : Encoding.F8_E8M0, scales))
            .scaleOrder(ScaleOrder.BLOCKED_128X4)
            .globalScale(scale)
            .arithmetic(isFp4() ? dtype : Encoding.F32)
            .result(dtype)
            .build();
    return isFp4() ? m : ScaleTable.zeroIsZero(m, memory);
  }
}
