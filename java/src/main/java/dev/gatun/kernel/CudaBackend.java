package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_cuda_packed;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.List;
import java.util.Objects;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * The operations on one GPU: libgatun_cuda through its bindings. Made by {@link CudaProvider}. What
 * {@link Backend} has takes and gives the host's memory and waits; what takes a {@link CudaStream}
 * works on the device's, returns before it is done, and can be recorded in a {@link CudaGraph}.
 */
public final class CudaBackend implements Backend, AutoCloseable {
  private final CudaContext context;
  private final CudaGpu gpu;
  private final CudaTable table;
  private final CudaScratch.Kept pool;
  private final CudaUploads uploads;
  private final Pool<LinearCall<CudaMemory>> calls;
  private final CudaActivations activations;

  CudaBackend(int device) {
    this.gpu = CudaGpu.at(device);
    this.context = new CudaContext(device);
    this.table = new CudaTable();
    this.pool = new CudaScratch.Kept(context);
    this.uploads = new CudaUploads();
    this.calls = new Pool<>(LinearCall::new);
    this.activations = CudaActivations.AS_THEY_ARE;
  }

  private CudaBackend(CudaBackend of, CudaActivations activations) {
    this.gpu = of.gpu;
    this.context = of.context;
    this.table = of.table;
    this.pool = of.pool;
    this.uploads = of.uploads;
    this.calls = of.calls;
    this.activations = activations;
  }

  /**
   * The same backend, whose weights multiply columns of x with outliers apart with compute type I8:
   * x is rounded to binary16; a column with a magnitude of {@code threshold} or more in any row is
   * multiplied in floats, and the rest of a row is rounded to {@code x · (127 / absmax)}, absmax
   * being its largest magnitude below the threshold, and multiplied in integers. For weights of I8
   * with a scale a row. Closed with this one.
   */
  public Backend withOutliers(float threshold) {
    return new CudaBackend(this, CudaActivations.outliers(threshold));
  }

  /** The name of the kernel that the calling thread's last operation ran. */
  String lastKernel() {
    return table.last();
  }

  /** The same; of an operation that had nothing to do, the kernel that would have run. */
  private String ran(Operation operation, Encoding encoding, long count) {
    return count > 0 ? lastKernel() : kernel(operation, encoding, Optional.empty()).orElse("none");
  }

  /** The GPU. */
  public CudaGpu gpu() {
    return gpu;
  }

  /** A stream of its own. */
  public CudaStream stream() {
    return new CudaStream(context);
  }

  /**
   * Memory on the device, aligned to 256 bytes, with whatever lies there.
   *
   * @throws dev.gatun.CudaOutOfMemoryException when the device has not as much
   */
  public CudaMemory allocate(long bytes) {
    return CudaMemory.allocate(context, bytes);
  }

  /** A copy of bytes of the host on the device, such as a tensor of a mapped checkpoint. */
  public CudaMemory upload(MemorySegment bytes) {
    CudaMemory memory = allocate(bytes.byteSize());
    CudaScratch scratch = pool.take();
    boolean done = false;
    try {
      scratch.stream().upload(bytes, memory);
      scratch.stream().synchronize();
      done = true;
      return memory;
    } finally {
      pool.give(scratch);
      if (!done) {
        memory.close();
      }
    }
  }

  /** A copy of a matrix on the device. The matrix's memory is not needed afterwards. */
  public CudaMatrix upload(Matrix matrix) {
    MatrixCheck.check(matrix);
    CudaScratch scratch = pool.take();
    try {
      CudaMatrix uploaded = CudaMatrix.upload(scratch.stream(), matrix);
      scratch.stream().synchronize();
      return uploaded;
    } finally {
      pool.give(scratch);
    }
  }

  /** Waits for all that every stream was given. */
  public void synchronize() {
    context.synchronize();
  }

  @Override
  public String name() {
    return "cuda";
  }

  @Override
  public List<Kernel> kernels() {
    return table.kernels();
  }

  @Override
  public Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute) {
    return kernel(operation, matrix.encoding(), compute).isEmpty()
        ? Optional.of(CudaTable.noKernel(operation, matrix, compute))
        : CudaTable.refuses(operation, matrix, compute);
  }

  @Override
  public Optional<String> how(
      Operation operation, Matrix matrix, Optional<Compute> compute, long m) {
    return operation == Operation.LINEAR && m > 0
        ? compute.flatMap(c -> CudaTable.way(gpu.index(), matrix, m, c))
        : Optional.empty();
  }

  @Override
  public String dequantize(
      Matrix matrix, long row0, long rows, MemorySegment out, Encoding outType) {
    MatrixCheck.rows(matrix, row0, rows, out, outType);
    long bytes = rows * matrix.k() * (outType.bits() / 8);
    return withMatrix(
        Operation.DEQUANTIZE,
        matrix,
        bytes,
        (stream, on, result) -> {
          dequantize(stream, on, row0, rows, result, outType);
          stream.download(result, out.asSlice(0, bytes));
        });
  }

  @Override
  public String embedding(Matrix matrix, long[] ids, MemorySegment out, Encoding outType) {
    MatrixCheck.embedding(matrix, ids, out, outType);
    long bytes = ids.length * matrix.k() * (outType.bits() / 8);
    return withMatrix(
        Operation.EMBEDDING,
        matrix,
        bytes,
        (stream, on, result) -> {
          try (CudaMemory numbers = allocate((long) ids.length * Long.BYTES)) {
            stream.upload(MemorySegment.ofArray(ids), numbers);
            embedding(stream, on, numbers, ids.length, result, outType);
            stream.download(result, out.asSlice(0, bytes));
          }
        });
  }

  /** An operation that reads a matrix. */
  private interface Reading {
    void run(CudaStream stream, CudaMatrix matrix, CudaMemory result);
  }

  /** Runs it with the matrix on the device and memory for its result; the kernel that ran. */
  private String withMatrix(Operation operation, Matrix matrix, long resultBytes, Reading reading) {
    CudaScratch scratch = pool.take();
    try (CudaMemory result = allocate(resultBytes)) {
      CudaMatrix on = uploads.take(scratch.stream(), matrix);
      try {
        reading.run(scratch.stream(), on, result);
      } finally {
        uploads.give(matrix, on);
      }
      return ran(operation, matrix.encoding(), resultBytes);
    } finally {
      pool.give(scratch);
    }
  }

  @Override
  public String quantize(Matrix matrix, QuantizeRule rule, MemorySegment w, Encoding wType) {
    MatrixCheck.quantize(matrix, rule, w, wType);
    long bytes = matrix.n() * matrix.k() * (wType.bits() / 8);
    CudaScratch scratch = pool.take();
    CudaStream stream = scratch.stream();
    try (CudaMatrix on = CudaMatrix.upload(stream, matrix);
        CudaMemory numbers = allocate(bytes)) {
      stream.upload(w.asSlice(0, bytes), numbers);
      quantize(stream, on, rule, numbers, wType);
      on.download(stream, matrix);
      return ran(Operation.QUANTIZE, matrix.encoding(), bytes);
    } finally {
      pool.give(scratch);
    }
  }

  @Override
  public String convert(
      MemorySegment src,
      Encoding srcType,
      MemorySegment dst,
      Encoding dstType,
      long count,
      boolean saturate) {
    MatrixCheck.convert(src, srcType, dst, dstType, count);
    long srcBytes = count * (srcType.bits() / 8);
    long dstBytes = count * (dstType.bits() / 8);
    CudaScratch scratch = pool.take();
    CudaStream stream = scratch.stream();
    try (CudaMemory from = allocate(srcBytes);
        CudaMemory to = allocate(dstBytes)) {
      stream.upload(src.asSlice(0, srcBytes), from);
      CudaCodecs.convert(stream, from, srcType, to, dstType, count, saturate);
      stream.download(to, dst.asSlice(0, dstBytes));
      return ran(Operation.CONVERT, dstType, dstBytes);
    } finally {
      pool.give(scratch);
    }
  }

  /**
   * Rows {@code row0 .. row0+rows-1} of a matrix on the device as {@code outType} (F32, F16, BF16),
   * row-major without gaps.
   */
  public void dequantize(
      CudaStream stream,
      CudaMatrix matrix,
      long row0,
      long rows,
      CudaMemory out,
      Encoding outType) {
    CudaCodecs.dequantize(stream, matrix, row0, rows, out, outType);
  }

  /**
   * Row {@code ids[i]} of a matrix on the device as row i of {@code out}; a row of NaN for an id
   * outside the matrix.
   *
   * @param ids {@code count} 64-bit integers
   */
  public void embedding(
      CudaStream stream,
      CudaMatrix matrix,
      CudaMemory ids,
      long count,
      CudaMemory out,
      Encoding outType) {
    CudaCodecs.embedding(stream, matrix, ids, count, out, outType);
  }

  /**
   * Fills the codes and, unless the rule keeps them, the scales of a matrix on the device.
   *
   * @param w N × K numbers, row-major without gaps
   */
  public void quantize(
      CudaStream stream, CudaMatrix matrix, QuantizeRule rule, CudaMemory w, Encoding wType) {
    CudaCodecs.quantize(stream, matrix, rule, w, wType);
  }

  /** Whether its weights multiply x with a compute type as a call says, and nothing else. */
  public boolean takesXAsItIs(Compute compute) {
    return activations.suffix(compute).isEmpty();
  }

  @Override
  public PackedWeight pack(Matrix matrix) {
    return pack(matrix, activations);
  }

  /**
   * The same for a weight that does more with x and y.
   *
   * @param activations what
   */
  public PackedWeight pack(Matrix matrix, CudaActivations activations) {
    MatrixCheck.check(matrix);
    CudaScratch scratch = pool.take();
    try (CudaMatrix on = CudaMatrix.upload(scratch.stream(), matrix)) {
      return pack(scratch.stream(), on, activations);
    } finally {
      pool.give(scratch);
    }
  }

  /**
   * Lays a matrix that is on the device out for {@link #linear}; waits until that is done. The
   * matrix is not needed afterwards.
   */
  public PackedWeight pack(CudaStream stream, CudaMatrix matrix) {
    return pack(stream, matrix, activations);
  }

  private PackedWeight pack(CudaStream stream, CudaMatrix matrix, CudaActivations activations) {
    MemorySegment struct = gatun_cuda_packed.allocate(Arena.ofAuto());
    long bytes;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment size = arena.allocate(ValueLayout.JAVA_LONG);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_packed_size(matrix.struct(), size));
      bytes = size.get(ValueLayout.JAVA_LONG, 0);
    }
    CudaMemory block = allocate(bytes);
    boolean done = false;
    try {
      CudaCodecs.giveMatrix(
          stream,
          matrix,
          block,
          () ->
              gatun_cuda_h.gatun_cuda_pack(
                  gpu.index(), matrix.struct(), block.address(), bytes, struct, stream.handle()));
      stream.synchronize();
      done = true;
      return new CudaPacked(this, matrix.description(), block, struct, activations);
    } finally {
      if (!done) {
        block.close();
      }
    }
  }

  @Override
  public void unpack(PackedWeight packed, Matrix into) {
    CudaPacked weight = mine(packed);
    weight.uses().enter();
    try {
      MatrixCheck.unpack(weight.description(), into);
      CudaScratch scratch = pool.take();
      CudaStream stream = scratch.stream();
      try (CudaMatrix on = CudaMatrix.upload(stream, into)) {
        stream.give(
            weight.uses(),
            on.memory().uses(),
            () ->
                gatun_cuda_h.gatun_cuda_unpack(
                    gpu.index(), weight.struct(), on.struct(), stream.handle()));
        on.download(stream, into);
      } finally {
        pool.give(scratch);
      }
    } finally {
      weight.uses().leave();
    }
  }

  @Override
  public void linear(PackedWeight packed, LinearCall<MemorySegment> call) {
    onHost(mine(packed), call, null, null);
  }

  /**
   * {@link #linear(PackedWeight, LinearCall)} with bias and multiplier, which the call has not, on
   * the device already; returns when y is there.
   *
   * @param bias N floats, or null
   * @param multiplier K floats, or null
   */
  public void linear(
      PackedWeight packed,
      LinearCall<MemorySegment> call,
      @Nullable CudaMemory bias,
      @Nullable CudaMemory multiplier) {
    CudaPacked weight = mine(packed);
    UseCount b = (bias == null ? CudaMemory.NONE : bias).uses();
    UseCount f = (multiplier == null ? CudaMemory.NONE : multiplier).uses();
    b.enter();
    try {
      f.enter();
      try {
        onHost(weight, call, bias, multiplier);
      } finally {
        f.leave();
      }
    } finally {
      b.leave();
    }
  }

  private void onHost(
      CudaPacked weight,
      LinearCall<MemorySegment> call,
      @Nullable CudaMemory bias,
      @Nullable CudaMemory multiplier) {
    weight.uses().enter();
    try {
      withScratch(scratch -> CudaProducts.onHost(scratch, weight, call, bias, multiplier));
    } finally {
      weight.uses().leave();
    }
  }

  /**
   * {@link Backend#linear} on the device's memory: given to a stream. Returns before it is done and
   * allocates nothing once the stream has seen as many rows.
   *
   * @throws IndexOutOfBoundsException when memory is too short
   * @throws IllegalStateException when something of it is closed
   */
  public void linear(CudaStream stream, PackedWeight packed, LinearCall<CudaMemory> call) {
    CudaPacked weight = mine(packed);
    LinearCall<CudaMemory> own = takeCall();
    try {
      CudaProducts.onDevice(stream, weight, own.set(call));
    } finally {
      giveCall(own);
    }
  }

  /** A call for a copy of the one under way: see {@link LinearCall#set}. */
  LinearCall<CudaMemory> takeCall() {
    return calls.take();
  }

  void giveCall(LinearCall<CudaMemory> call) {
    call.clear();
    calls.give(call);
  }

  /** Work with a stream, pinned memory and room of its own. */
  interface WithScratch {
    void run(CudaScratch scratch);
  }

  void withScratch(WithScratch work) {
    CudaScratch scratch = pool.take();
    try {
      work.run(scratch);
    } finally {
      pool.give(scratch);
    }
  }

  /**
   * Weights that are multiplied together, each for a run of rows of its own. The weights stay the
   * caller's; the group keeps their memory for as long as it is open.
   *
   * @param experts at least one, packed by this backend, all N × K
   * @throws GatunException when they do not go together
   */
  public CudaGroup groupOf(List<CudaGroup.Expert> experts) {
    experts.forEach(expert -> mine(expert.packed()));
    return new CudaGroup(this, experts);
  }

  private CudaPacked mine(PackedWeight packed) {
    if (Objects.requireNonNull(packed, "packed") instanceof CudaPacked weight
        && weight.backend().context == context) {
      return weight;
    }
    throw new GatunException(
        "cuda: found a weight that another backend packed, expected one of its own");
  }

  /**
   * Closes what the backend keeps. The device is let go when the last weight, memory, stream and
   * graph is closed too. A second call does nothing.
   */
  @Override
  public void close() {
    pool.close();
    uploads.close();
    context.uses().close();
  }
}
