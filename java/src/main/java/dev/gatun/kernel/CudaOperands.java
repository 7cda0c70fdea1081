package dev.gatun.kernel;

import org.jspecify.annotations.Nullable;

/**
 * Where the operands of a {@link LinearCall} lie on the device: what the library is handed. Filled
 * again and again.
 */
final class CudaOperands {
  long x;
  long ldx;
  long y;
  long ldy;
  long bias;
  long multiplier;
  long other;
  long ldOther;
  long xScales;

  void fill(LinearCall<CudaMemory> call) {
    x = call.x().address();
    ldx = call.ldx();
    y = call.y().address();
    ldy = call.ldy();
    bias = address(call.bias());
    multiplier = address(call.multiplier());
    other = address(call.other());
    ldOther = call.ldOther();
    xScales = address(call.xScales());
  }

  void clear() {
    x = 0;
    y = 0;
    bias = 0;
    multiplier = 0;
    other = 0;
    xScales = 0;
  }

  private static long address(@Nullable CudaMemory memory) {
    return memory == null ? 0 : memory.address();
  }
}
