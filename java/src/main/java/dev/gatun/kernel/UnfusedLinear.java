package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.kernel.codec.Activations;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * Multipliers and epilogues around a product that has none: for a backend that does not do them
 * while it has the sums at hand. It makes x' and the sums in memory of its own.
 */
public final class UnfusedLinear {
  /** A product without multiplier and epilogue. */
  public interface Plain {
    /** y = x · Wᵀ + bias. */
    void linear(PackedWeight packed, LinearCall<MemorySegment> call);
  }

  private UnfusedLinear() {}

  /** Does the call with a product in floats. */
  public static void run(PackedWeight packed, LinearCall<MemorySegment> call, Plain plain) {
    long n = packed.n();
    long k = packed.k();
    call.check(n, k);
    long m = call.m();
    MemorySegment multiplier = call.multiplier();
    MemorySegment other = call.other();
    Epilogue epilogue = call.epilogue();
    try (Arena arena = Arena.ofShared()) {
      MemorySegment sums = arena.allocate(Math.multiplyExact(m * n, Float.BYTES), 64);
      MemorySegment input = arena.allocate(Math.multiplyExact(m * k, Float.BYTES), 64);
      for (long i = 0; i < m * k; i++) {
        float v = Numbers.get(call.xType(), call.x(), i / k * call.ldx() + i % k);
        Numbers.put(Encoding.F32, input, i, v * factor(multiplier, i % k));
      }
      plain.linear(
          packed,
          LinearCall.of(input, Encoding.F32, k, m, sums, Encoding.F32, n)
              .bias(call.bias())
              .compute(call.compute())
              .rounded(call.xScale())
              .threads(call.threads()));
      for (long i = 0; i < m * n; i++) {
        double sum = Numbers.get(Encoding.F32, sums, i);
        double and =
            other == null ? 0 : Numbers.get(call.yType(), other, i / n * call.ldOther() + i % n);
        Numbers.put(
            call.yType(),
            call.y(),
            i / n * call.ldy() + i % n,
            Activations.apply(epilogue, sum, and));
      }
    }
  }

  private static float factor(@Nullable MemorySegment multiplier, long k) {
    return multiplier == null ? 1 : Numbers.get(Encoding.F32, multiplier, k);
  }
}
