package dev.gatun.kernel;

import dev.gatun.GatunException;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/**
 * {@code linear} on a GPU: on the device's memory, where it is given to a stream, and on the
 * host's, which goes there and back. Allocates nothing once warm.
 */
final class CudaProducts {
  /** Weight or group, x, y, bias, multiplier, other, scales of x, offsets. */
  private static final int HELD = 8;

  private CudaProducts() {}

  /**
   * Gives the product to the stream; see {@link CudaBackend#linear(CudaStream, PackedWeight,
   * LinearCall)}.
   *
   * @param call that no other thread knows
   */
  static void onDevice(CudaStream stream, CudaPacked weight, LinearCall<CudaMemory> call) {
    check(weight.n(), weight.k(), call);
    stream.checkHere(weight.block());
    int held = 0;
    try {
      while (held < HELD) {
        uses(stream, weight.uses(), call, CudaMemory.NONE, held).enter();
        held++;
      }
      remember(stream, weight.uses(), call, CudaMemory.NONE);
      stream.linear(weight, call);
    } finally {
      leave(stream, weight.uses(), call, CudaMemory.NONE, held);
    }
  }

  /**
   * The same for experts; see {@link CudaGroup#linear(CudaStream, LinearCall, CudaMemory)}.
   *
   * @param call that no other thread knows
   */
  static void onDevice(
      CudaStream stream, CudaGroup group, LinearCall<CudaMemory> call, CudaMemory offsets) {
    check(group.n(), group.k(), call);
    stream.checkHere(group.block());
    int held = 0;
    try {
      while (held < HELD) {
        uses(stream, group.uses(), call, offsets, held).enter();
        held++;
      }
      remember(stream, group.uses(), call, offsets);
      stream.linear(group, call, offsets.address());
    } finally {
      leave(stream, group.uses(), call, offsets, held);
    }
  }

  private static void remember(
      CudaStream stream, UseCount weights, LinearCall<CudaMemory> call, CudaMemory offsets) {
    if (stream.isRecording()) {
      for (int i = 0; i < HELD; i++) {
        stream.remember(uses(stream, weights, call, offsets, i));
      }
    }
  }

  private static void leave(
      CudaStream stream,
      UseCount weights,
      LinearCall<CudaMemory> call,
      CudaMemory offsets,
      int held) {
    for (int i = held - 1; i >= 0; i--) {
      uses(stream, weights, call, offsets, i).leave();
    }
  }

  /** What is held number i, which must be of the stream's device. */
  private static UseCount uses(
      CudaStream stream, UseCount weights, LinearCall<CudaMemory> call, CudaMemory offsets, int i) {
    if (i == 0) {
      return weights;
    }
    CudaMemory memory = i == HELD - 1 ? offsets : operand(call, i);
    stream.checkHere(memory);
    return memory.uses();
  }

  private static CudaMemory operand(LinearCall<CudaMemory> call, int i) {
    CudaMemory memory =
        switch (i) {
          case 1 -> call.x();
          case 2 -> call.y();
          case 3 -> call.bias();
          case 4 -> call.multiplier();
          case 5 -> call.other();
          default -> call.xScales();
        };
    return memory == null ? CudaMemory.NONE : memory;
  }

  private static void check(long n, long k, LinearCall<CudaMemory> call) {
    call.check(n, k);
    CudaMemory x = call.x();
    CudaMemory y = call.y();
    CudaMemory other = call.other();
    long rows = call.m() - 1;
    int size = call.yType().bits() / 8;
    long yBytes = (rows * call.ldy() + n) * size;
    if (overlap(x, (rows * call.ldx() + k) * (call.xType().bits() / 8), y, yBytes)) {
      throw new GatunException("linear: found x and y that overlap, expected separate memory");
    }
    if (other != null
        && !(other.address() == y.address() && call.ldOther() == call.ldy())
        && overlap(other, (rows * call.ldOther() + n) * size, y, yBytes)) {
      throw new GatunException(
          "linear: found other and y that overlap in part, expected y itself or separate memory");
    }
  }

  private static boolean overlap(CudaMemory a, long aBytes, CudaMemory b, long bBytes) {
    return a.address() < b.address() + bBytes && b.address() < a.address() + aBytes;
  }

  /**
   * Uploads x, other, and bias and multiplier unless they are on the device; multiplies, downloads
   * y and waits for it.
   *
   * @param bias in place of the call's, or null
   * @param multiplier in place of the call's, or null
   */
  static void onHost(
      CudaScratch scratch,
      CudaPacked weight,
      LinearCall<MemorySegment> call,
      @Nullable CudaMemory bias,
      @Nullable CudaMemory multiplier) {
    LinearCall<MemorySegment> own = scratch.call().set(call);
    try {
      own.check(weight.n(), weight.k());
      run(scratch, weight, own, bias, multiplier);
    } finally {
      own.clear();
    }
  }

  private static void run(
      CudaScratch scratch,
      CudaPacked weight,
      LinearCall<MemorySegment> call,
      @Nullable CudaMemory bias,
      @Nullable CudaMemory multiplier) {
    long n = weight.n();
    long k = weight.k();
    long m = call.m();
    int xSize = call.xType().bits() / 8;
    int ySize = call.yType().bits() / 8;
    long xBytes = Math.multiplyExact(Math.multiplyExact(m, k), xSize);
    long yBytes = Math.multiplyExact(Math.multiplyExact(m, n), ySize);
    long scaleBytes = call.xScaleCount(k) * Float.BYTES;
    scratch.room(
        CudaScratch.piece(xBytes)
            + 2 * CudaScratch.piece(yBytes)
            + CudaScratch.piece(n * Float.BYTES)
            + CudaScratch.piece(k * Float.BYTES)
            + CudaScratch.piece(scaleBytes));
    CudaOperands on = scratch.operands();
    on.bias = bias == null ? scratch.upload(call.bias(), 1, n * Float.BYTES, 0) : bias.address();
    on.multiplier =
        multiplier == null
            ? scratch.upload(call.multiplier(), 1, k * Float.BYTES, 0)
            : multiplier.address();
    on.x = scratch.upload(call.x(), m, k * xSize, call.ldx() * xSize);
    on.ldx = k;
    on.other = scratch.upload(call.other(), m, n * ySize, call.ldOther() * ySize);
    on.ldOther = n;
    on.xScales = scratch.upload(call.xScales(), 1, scaleBytes, 0);
    on.y = scratch.next(yBytes);
    on.ldy = n;
    scratch.stream().linear(weight, call, on);
    scratch.stream().staging().download(on.y, call.y(), m, n * ySize, call.ldy() * ySize);
  }
}
