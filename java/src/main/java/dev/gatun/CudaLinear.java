package dev.gatun;

import dev.gatun.kernel.CudaActivations;
import dev.gatun.kernel.CudaBackend;
import dev.gatun.kernel.CudaGroup;
import dev.gatun.kernel.CudaMemory;
import dev.gatun.kernel.CudaStream;
import dev.gatun.kernel.LinearCall;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.PackedWeight;
import dev.gatun.kernel.Pool;
import java.lang.foreign.MemorySegment;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** A packed weight, its bias, and what x is multiplied by, all on one GPU. */
final class CudaLinear implements Linear {
  private final CudaBackend backend;
  private final PackedWeight packed;
  private final @Nullable CudaMemory bias;
  private final @Nullable CudaMemory xMultiplier;
  private final Compute compute;

  /** Whether x and y are taken as they are. */
  private final boolean plain;

  private final long n;
  private final long k;
  private final Pool<LinearCall<MemorySegment>> hostCalls = new Pool<>(LinearCall::new);
  private final Pool<LinearCall<CudaMemory>> calls = new Pool<>(LinearCall::new);

  private CudaLinear(
      CudaBackend backend,
      PackedWeight packed,
      @Nullable CudaMemory bias,
      @Nullable CudaMemory xMultiplier,
      Compute compute,
      boolean plain) {
    this.backend = backend;
    this.packed = packed;
    this.bias = bias;
    this.xMultiplier = xMultiplier;
    this.compute = compute;
    this.plain = plain;
    this.n = packed.n();
    this.k = packed.k();
  }

  /**
   * Uploads and packs.
   *
   * @param bias N floats of the host, or null
   * @param xMultiplier K floats of the host, or null
   * @param activations what else is done with x and y; null: what the backend does
   */
  static Linear of(
      CudaBackend backend,
      Matrix matrix,
      @Nullable MemorySegment bias,
      @Nullable MemorySegment xMultiplier,
      Compute compute,
      @Nullable CudaActivations activations) {
    PackedWeight packed =
        activations == null ? backend.pack(matrix) : backend.pack(matrix, activations);
    CudaMemory onBias = null;
    CudaMemory onMultiplier = null;
    boolean done = false;
    try {
      onBias = upload(backend, bias);
      onMultiplier = upload(backend, xMultiplier);
      done = true;
      boolean plain = activations == null && backend.takesXAsItIs(compute);
      return new CudaLinear(backend, packed, onBias, onMultiplier, compute, plain);
    } finally {
      if (!done) {
        packed.close();
        close(onBias);
      }
    }
  }

  private static @Nullable CudaMemory upload(CudaBackend backend, @Nullable MemorySegment floats) {
    return floats == null ? null : backend.upload(floats);
  }

  private static void close(@Nullable CudaMemory memory) {
    if (memory != null) {
      memory.close();
    }
  }

  @Override
  public long outFeatures() {
    return n;
  }

  @Override
  public long inFeatures() {
    return k;
  }

  @Override
  public Compute compute() {
    return compute;
  }

  @Override
  public String kernel(long m) {
    if (m < 1) {
      throw new GatunException("linear: found " + m + " rows, expected at least 1");
    }
    return packed.kernel(compute, m);
  }

  @Override
  public void forward(
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      long ldOther) {
    LinearCall<MemorySegment> call = hostCalls.take();
    try {
      call.operands(x, xType, ldx, m, y, yType, ldy)
          .epilogue(epilogue, other, ldOther)
          .compute(compute);
      PackedLinear.check(n, k, call);
      backend.linear(packed, call, bias, xMultiplier);
    } finally {
      call.clear();
      hostCalls.give(call);
    }
  }

  @Override
  public void forward(
      CudaStream stream,
      CudaMemory x,
      Encoding xType,
      long ldx,
      long m,
      CudaMemory y,
      Encoding yType,
      long ldy,
      Epilogue epilogue,
      @Nullable CudaMemory other,
      long ldOther) {
    Objects.requireNonNull(stream, "stream");
    LinearCall<CudaMemory> call = calls.take();
    try {
      call.operands(x, xType, ldx, m, y, yType, ldy)
          .bias(bias)
          .multiplier(xMultiplier)
          .epilogue(epilogue, other, ldOther)
          .compute(compute);
      backend.linear(stream, packed, call);
    } finally {
      call.clear();
      calls.give(call);
    }
  }

  /** Whether a layer can run together with this one. */
  boolean goesWith(Linear other) {
    return other instanceof CudaLinear linear
        && linear.backend.equals(backend)
        && linear.compute == compute
        && linear.plain
        && plain;
  }

  /** This layer's part of a group. */
  CudaGroup.Expert expert() {
    return new CudaGroup.Expert(packed, bias, xMultiplier);
  }

  CudaBackend backend() {
    return backend;
  }

  @Override
  public void close() {
    packed.close();
    close(bias);
    close(xMultiplier);
  }
}
