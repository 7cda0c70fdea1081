package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/** A weight laid out on a GPU. */
final class CudaPacked implements PackedWeight {
  /** Most rows of the call that finds out which kernel runs. */
  private static final long DRY_ROWS = 256;

  private final CudaBackend backend;
  private final Matrix description;
  private final CudaMemory block;

  /** The {@code gatun_cuda_packed}. */
  private final MemorySegment struct;

  private final CudaActivations activations;

  CudaPacked(
      CudaBackend backend,
      Matrix description,
      CudaMemory block,
      MemorySegment struct,
      CudaActivations activations) {
    this.backend = backend;
    this.description = description;
    this.block = block;
    this.struct = struct;
    this.activations = activations;
  }

  CudaBackend backend() {
    return backend;
  }

  Matrix description() {
    return description;
  }

  MemorySegment struct() {
    return struct;
  }

  /** What it does with x and y beside what a call says. */
  CudaActivations activations() {
    return activations;
  }

  CudaMemory block() {
    return block;
  }

  /** Whoever uses the weight uses its block. */
  UseCount uses() {
    return block.uses();
  }

  @Override
  public long n() {
    return description.n();
  }

  @Override
  public long k() {
    return description.k();
  }

  @Override
  public long byteSize() {
    return block.byteSize();
  }

  /**
   * Which one depends on how the weight could be laid out, and that the library only tells of a
   * call that it has run: it runs one, on zeros.
   */
  @Override
  public String kernel(Compute compute, long m) {
    if (n() == 0) { // nothing runs
      Optional<Compute> with = Optional.of(compute.multiply());
      return backend.kernel(Operation.LINEAR, description.encoding(), with).orElse("none");
    }
    long rows = Math.clamp(m, 1, DRY_ROWS);
    try (CudaStream stream = backend.stream();
        CudaMemory x = backend.allocate(rows * k() * Float.BYTES);
        CudaMemory y = backend.allocate(rows * n() * Float.BYTES)) {
      stream.fill(x, (byte) 0);
      backend.linear(
          stream,
          this,
          LinearCall.of(x, Encoding.F32, k(), rows, y, Encoding.F32, n()).compute(compute));
      return backend.lastKernel() + activations.suffix(compute);
    }
  }

  /** Gives the block back as {@link CudaMemory} does. */
  @Override
  public void close() {
    block.close();
  }
}
