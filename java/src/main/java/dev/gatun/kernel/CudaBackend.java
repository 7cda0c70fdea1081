package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_cuda_kernel;
import dev.gatun.bindings.gatun_cuda_packed;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.function.IntSupplier;
import org.jspecify.annotations.Nullable;

/**
 * The operations on one GPU: libgatun_cuda through its bindings. Made by {@link CudaProvider}. What
 * {@link Backend} has takes and gives the host's memory and waits; what takes a {@link CudaStream}
 * works on the device's, returns before it is done, and can be recorded in a {@link CudaGraph}.
 */
public final class CudaBackend implements Backend, AutoCloseable {
  /** What every form of a weight is multiplied in. */
  private static final Set<Compute> EXACT = Set.of(Compute.F32, Compute.BF16);

  /** Weights of a row that share a scale in tiles of codes, at least. */
  private static final long RUN = 16;

  private final CudaContext context;
  private final CudaGpu gpu;
  private final List<Kernel> kernels;

  /** Of every row of the library's table. */
  private final List<String> names;

  private final CudaScratch.Kept pool;
  private final CudaUploads uploads;

  CudaBackend(int device) {
    this.gpu = CudaGpu.at(device);
    this.context = new CudaContext(device);
    List<Row> table = table();
    this.names = table.stream().map(Row::name).toList();
    this.kernels = table.stream().flatMap(row -> row.kernel().stream()).toList();
    this.pool = new CudaScratch.Kept(context);
    this.uploads = new CudaUploads();
  }

  /** One row of the library's table; no kernel when it computes what Java has no word for. */
  record Row(String name, Optional<Kernel> kernel) {}

  /** The table of the library, which must be loaded. */
  static List<Row> table() {
    List<Row> rows = new ArrayList<>();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment row = gatun_cuda_kernel.allocate(arena);
      for (int i = 0; i < gatun_cuda_h.gatun_cuda_kernel_count(); i++) {
        CudaCalls.check(gatun_cuda_h.gatun_cuda_kernel_at(i, row));
        rows.add(new Row(gatun_cuda_kernel.name(row).getString(0), kernel(row)));
      }
    }
    return List.copyOf(rows);
  }

  private static Optional<Kernel> kernel(MemorySegment row) {
    int operation = gatun_cuda_kernel.operation(row);
    int id = gatun_cuda_kernel.compute(row);
    Optional<Compute> compute =
        Compute.multiplies().stream().filter(c -> c.id() == id && id != 0).findFirst();
    if (id != 0 && compute.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(
        new Kernel(
            Arrays.stream(Operation.values())
                .filter(o -> o.id() == operation)
                .findFirst()
                .orElseThrow(),
            NativeBackend.encoding(gatun_cuda_kernel.encoding(row)).orElseThrow(),
            compute,
            "sm" + gatun_cuda_kernel.sm(row),
            gatun_cuda_kernel.name(row).getString(0)));
  }

  /** The name of the kernel that the calling thread's last operation ran. */
  String lastKernel() {
    int index = gatun_cuda_h.gatun_cuda_last_kernel();
    return index < 0 ? "none" : names.get(index);
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
    return kernels;
  }

  @Override
  public Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute) {
    if (kernel(operation, matrix.encoding(), compute).isEmpty()) {
      String with = compute.map(c -> " with compute " + c).orElse("");
      return Optional.of(
          ("no kernel for " + operation + " of " + matrix.encoding() + with)
              .toLowerCase(Locale.ROOT));
    }
    if (operation == Operation.QUANTIZE) {
      CodeOrder order = matrix.codeOrder();
      return order == CodeOrder.LOW_FIRST || order == CodeOrder.HIGH_FIRST
          ? Optional.empty()
          : Optional.of("it quantizes codes in row order only, not " + order);
    }
    if (operation != Operation.LINEAR && operation != Operation.PACK) {
      return Optional.empty();
    }
    Optional<String> undefined = compute.flatMap(c -> ReferencePacked.refuses(matrix, c));
    if (undefined.isPresent()) {
      return undefined;
    }
    boolean codes = compute.isPresent() && !EXACT.contains(compute.get());
    if (codes && !isInRuns(matrix)) {
      return Optional.of(
          "compute " + compute.get() + " takes scales of 16 or more weights of a row, not these");
    }
    // What can be packed depends on more than the encoding: the library is asked.
    try (Arena arena = Arena.ofConfined()) {
      MatrixCheck.check(matrix);
      // It looks at sizes only, and takes null for memory that is not there.
      MemorySegment described = MatrixStruct.of(matrix, arena, (part, alignment) -> alignment);
      MemorySegment size = arena.allocate(ValueLayout.JAVA_LONG);
      int status = gatun_cuda_h.gatun_cuda_packed_size(described, size);
      return status == gatun_h.GATUN_OK()
          ? Optional.empty()
          : Optional.of(CudaCalls.detail(status));
    } catch (GatunException e) {
      return Optional.of(String.valueOf(e.getMessage()));
    }
  }

  /**
   * Whether the weight can be laid out in tiles of codes, which kernels that multiply codes need:
   * scales of whole runs of at least 16 weights of one row, and nothing that mixes columns.
   */
  private static boolean isInRuns(Matrix m) {
    if (m.columnGroups().isPresent()
        || m.rowScales().isPresent()
        || m.codebook().isPresent()
        || m.rotation() != 0
        || m.n() == 0
        || m.k() == 0) {
      return false;
    }
    return switch (m.granularity()) {
      case Granularity.Tile(long _, long cols, long _, long _) -> cols >= m.k() || cols % RUN == 0;
      case Granularity.Flat(long block) ->
          block >= m.k() ? block % m.k() == 0 : m.k() % block == 0 && block % RUN == 0;
    };
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
      stream.give(
          from.uses(),
          to.uses(),
          () ->
              gatun_cuda_h.gatun_cuda_convert(
                  gpu.index(),
                  from.address(),
                  srcType.id(),
                  to.address(),
                  dstType.id(),
                  count,
                  saturate ? 1 : 0,
                  stream.handle()));
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
    Matrix m = matrix.description();
    if (row0 < 0 || rows < 0 || rows > m.n() - row0) {
      throw new GatunException(
          "dequantize: found rows "
              + row0
              + " to "
              + row0
              + " + "
              + rows
              + ", expected within 0 to "
              + m.n());
    }
    output("dequantize", m, rows, out, outType);
    giveMatrix(
        stream,
        matrix,
        out,
        () ->
            gatun_cuda_h.gatun_cuda_dequantize(
                gpu.index(),
                matrix.struct(),
                row0,
                rows,
                out.address(),
                outType.id(),
                m.k(),
                stream.handle()));
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
    Matrix m = matrix.description();
    if (count < 0 || ids.byteSize() / Long.BYTES < count) {
      throw new IndexOutOfBoundsException(
          "embedding: found " + count + " ids in " + ids.byteSize() + " bytes");
    }
    output("embedding", m, count, out, outType);
    stream.checkHere(ids);
    ids.uses().enter();
    try {
      if (stream.isRecording()) {
        stream.remember(ids.uses());
      }
      giveMatrix(
          stream,
          matrix,
          out,
          () ->
              gatun_cuda_h.gatun_cuda_embedding(
                  gpu.index(),
                  matrix.struct(),
                  ids.address(),
                  count,
                  out.address(),
                  outType.id(),
                  m.k(),
                  stream.handle()));
    } finally {
      ids.uses().leave();
    }
  }

  /**
   * Fills the codes and, unless the rule keeps them, the scales of a matrix on the device.
   *
   * @param w N × K numbers, row-major without gaps
   */
  public void quantize(
      CudaStream stream, CudaMatrix matrix, QuantizeRule rule, CudaMemory w, Encoding wType) {
    Matrix m = matrix.description();
    output("quantize", m, m.n(), w, wType);
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment described = NativeBackend.describe(rule, arena);
      giveMatrix(
          stream,
          matrix,
          w,
          () ->
              gatun_cuda_h.gatun_cuda_quantize(
                  gpu.index(),
                  matrix.struct(),
                  described,
                  w.address(),
                  wType.id(),
                  m.k(),
                  stream.handle()));
    }
  }

  private static void output(String what, Matrix m, long rows, CudaMemory memory, Encoding type) {
    if (!type.isPlain()) {
      throw new GatunException(what + ": found numbers of " + type + ", expected F32, F16 or BF16");
    }
    long bytes = Math.multiplyExact(Math.multiplyExact(rows, m.k()), type.bits() / 8);
    if (memory.byteSize() < bytes) {
      throw new IndexOutOfBoundsException(
          what + ": found " + memory.byteSize() + " bytes, expected at least " + bytes);
    }
  }

  private static void giveMatrix(
      CudaStream stream, CudaMatrix matrix, CudaMemory numbers, IntSupplier call) {
    stream.checkHere(matrix.memory());
    stream.checkHere(numbers);
    stream.give(matrix.memory().uses(), numbers.uses(), call);
  }

  @Override
  public PackedWeight pack(Matrix matrix) {
    MatrixCheck.check(matrix);
    CudaScratch scratch = pool.take();
    try (CudaMatrix on = CudaMatrix.upload(scratch.stream(), matrix)) {
      return pack(scratch.stream(), on);
    } finally {
      pool.give(scratch);
    }
  }

  /**
   * Lays a matrix that is on the device out for {@link #linear}; waits until that is done. The
   * matrix is not needed afterwards.
   */
  public PackedWeight pack(CudaStream stream, CudaMatrix matrix) {
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
      giveMatrix(
          stream,
          matrix,
          block,
          () ->
              gatun_cuda_h.gatun_cuda_pack(
                  gpu.index(), matrix.struct(), block.address(), bytes, struct, stream.handle()));
      stream.synchronize();
      done = true;
      return new CudaPacked(this, matrix.description(), block, struct);
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
  public void linear(
      PackedWeight packed,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      @Nullable MemorySegment bias,
      Compute compute,
      int threads) {
    linear(
        packed,
        x,
        xType,
        ldx,
        m,
        y,
        yType,
        ldy,
        bias,
        null,
        Epilogue.NONE,
        null,
        0,
        compute,
        threads);
  }

  @Override
  public void linear(
      PackedWeight packed,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      @Nullable MemorySegment bias,
      @Nullable MemorySegment xMultiplier,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      long ldOther,
      Compute compute,
      int threads) {
    CudaPacked weight = mine(packed);
    MatrixCheck.linear(weight.n(), weight.k(), x, xType, ldx, m, y, yType, ldy);
    MatrixCheck.fused(
        weight.n(), weight.k(), m, bias, xMultiplier, epilogue, other, yType, ldOther);
    weight.uses().enter();
    try {
      CudaScratch scratch = pool.take();
      try {
        long floatBytes = CudaScratch.piece(weight.n() * Float.BYTES);
        long multiplierBytes = CudaScratch.piece(weight.k() * Float.BYTES);
        room(scratch, weight, xType, m, yType, floatBytes + multiplierBytes);
        CudaStaging staging = scratch.stream().staging();
        long onBias = 0;
        if (bias != null) {
          onBias = scratch.next(weight.n() * Float.BYTES);
          staging.upload(onBias, bias, 1, weight.n() * Float.BYTES, 0);
        }
        long onMultiplier = 0;
        if (xMultiplier != null) {
          onMultiplier = scratch.next(weight.k() * Float.BYTES);
          staging.upload(onMultiplier, xMultiplier, 1, weight.k() * Float.BYTES, 0);
        }
        onHost(
            scratch,
            weight,
            x,
            xType,
            ldx,
            m,
            y,
            yType,
            ldy,
            onBias,
            onMultiplier,
            epilogue,
            other,
            ldOther,
            compute);
      } finally {
        pool.give(scratch);
      }
    } finally {
      weight.uses().leave();
    }
  }

  /**
   * {@link #linear} on host memory, with bias and multiplier on the device already; returns when y
   * is there.
   */
  public void linear(
      PackedWeight packed,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      @Nullable CudaMemory bias,
      @Nullable CudaMemory xMultiplier,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      long ldOther,
      Compute compute) {
    CudaPacked weight = mine(packed);
    CudaMemory b = bias == null ? CudaMemory.NONE : bias;
    CudaMemory f = xMultiplier == null ? CudaMemory.NONE : xMultiplier;
    MatrixCheck.linear(weight.n(), weight.k(), x, xType, ldx, m, y, yType, ldy);
    MatrixCheck.fused(weight.n(), weight.k(), m, null, null, epilogue, other, yType, ldOther);
    int held = 0;
    try {
      weight.uses().enter();
      held++;
      b.uses().enter();
      held++;
      f.uses().enter();
      held++;
      CudaScratch scratch = pool.take();
      try {
        room(scratch, weight, xType, m, yType, 0);
        onHost(
            scratch,
            weight,
            x,
            xType,
            ldx,
            m,
            y,
            yType,
            ldy,
            b.address(),
            f.address(),
            epilogue,
            other,
            ldOther,
            compute);
      } finally {
        pool.give(scratch);
      }
    } finally {
      leave(held, weight.uses(), b.uses(), f.uses());
    }
  }

  private static void leave(int held, UseCount first, UseCount second, UseCount third) {
    if (held > 0) {
      first.leave();
    }
    if (held > 1) {
      second.leave();
    }
    if (held > 2) {
      third.leave();
    }
  }

  /** Room for x, y, other and some more. */
  private static void room(
      CudaScratch scratch, CudaPacked weight, Encoding xType, long m, Encoding yType, long more) {
    long x = CudaScratch.piece(Math.multiplyExact(m * weight.k(), xType.bits() / 8));
    long y = CudaScratch.piece(Math.multiplyExact(m * weight.n(), yType.bits() / 8));
    scratch.room(x + 2 * y + more);
  }

  /** Uploads x and other, multiplies, downloads y. */
  private static void onHost(
      CudaScratch scratch,
      CudaPacked weight,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long m,
      MemorySegment y,
      Encoding yType,
      long ldy,
      long bias,
      long xMultiplier,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      long ldOther,
      Compute compute) {
    long n = weight.n();
    long k = weight.k();
    int xSize = xType.bits() / 8;
    int ySize = yType.bits() / 8;
    long onX = scratch.next(m * k * xSize);
    long onY = scratch.next(m * n * ySize);
    CudaStaging staging = scratch.stream().staging();
    staging.upload(onX, x, m, k * xSize, ldx * xSize);
    long onOther = 0;
    if (other != null) {
      onOther = scratch.next(m * n * ySize);
      staging.upload(onOther, other, m, n * ySize, ldOther * ySize);
    }
    scratch.stream()
        .linear(
            weight.struct(),
            onX,
            xType.id(),
            k,
            m,
            onY,
            yType.id(),
            n,
            bias,
            xMultiplier,
            epilogue.activation().id(),
            epilogue.combine().id(),
            onOther,
            n,
            compute.id());
    staging.download(onY, y, m, n * ySize, ldy * ySize);
  }

  /**
   * y = combine(activation(x' · Wᵀ + bias), other) on the device's memory, as {@link
   * Backend#linear} has it. Returns before it is done and allocates nothing once the stream has
   * seen as many rows.
   *
   * @param bias N floats, or null
   * @param xMultiplier K floats, or null
   * @param other y itself or memory that does not overlap it; null when nothing is combined
   * @throws IndexOutOfBoundsException when memory is too short
   * @throws IllegalStateException when something of it is closed
   */
  public void linear(
      CudaStream stream,
      PackedWeight packed,
      CudaMemory x,
      Encoding xType,
      long ldx,
      long m,
      CudaMemory y,
      Encoding yType,
      long ldy,
      @Nullable CudaMemory bias,
      @Nullable CudaMemory xMultiplier,
      Epilogue epilogue,
      @Nullable CudaMemory other,
      long ldOther,
      Compute compute) {
    CudaPacked weight = mine(packed);
    CudaMemory b = bias == null ? CudaMemory.NONE : bias;
    CudaMemory f = xMultiplier == null ? CudaMemory.NONE : xMultiplier;
    CudaMemory o = other == null ? CudaMemory.NONE : other;
    check(weight, x, xType, ldx, m, y, yType, ldy, bias, xMultiplier, epilogue, other, ldOther);
    stream.checkHere(x);
    stream.checkHere(y);
    stream.checkHere(b);
    stream.checkHere(f);
    stream.checkHere(o);
    stream.checkHere(weight.block());
    int held = 0;
    int heldMore = 0;
    try {
      weight.uses().enter();
      held++;
      x.uses().enter();
      held++;
      y.uses().enter();
      held++;
      b.uses().enter();
      heldMore++;
      f.uses().enter();
      heldMore++;
      o.uses().enter();
      heldMore++;
      if (stream.isRecording()) {
        stream.remember(weight.uses(), x.uses(), y.uses(), b.uses(), f.uses(), o.uses());
      }
      stream.linear(
          weight.struct(),
          x.address(),
          xType.id(),
          ldx,
          m,
          y.address(),
          yType.id(),
          ldy,
          b.address(),
          f.address(),
          epilogue.activation().id(),
          epilogue.combine().id(),
          o.address(),
          ldOther,
          compute.id());
    } finally {
      leave(heldMore, b.uses(), f.uses(), o.uses());
      leave(held, weight.uses(), x.uses(), y.uses());
    }
  }

  private static void check(
      CudaPacked weight,
      CudaMemory x,
      Encoding xType,
      long ldx,
      long m,
      CudaMemory y,
      Encoding yType,
      long ldy,
      @Nullable CudaMemory bias,
      @Nullable CudaMemory xMultiplier,
      Epilogue epilogue,
      @Nullable CudaMemory other,
      long ldOther) {
    long n = weight.n();
    long k = weight.k();
    MatrixCheck.linear(n, k, x.byteSize(), xType, ldx, m, y.byteSize(), yType, ldy);
    MatrixCheck.fused(
        n,
        k,
        m,
        bias == null ? -1 : bias.byteSize(),
        xMultiplier == null ? -1 : xMultiplier.byteSize(),
        epilogue,
        other == null ? -1 : other.byteSize(),
        yType,
        ldOther);
    int size = yType.bits() / 8;
    long yBytes = ((m - 1) * ldy + n) * size;
    if (overlap(x, ((m - 1) * ldx + k) * (xType.bits() / 8), y, yBytes)) {
      throw new GatunException("linear: found x and y that overlap, expected separate memory");
    }
    if (other != null
        && !(other.address() == y.address() && ldOther == ldy)
        && overlap(other, ((m - 1) * ldOther + n) * size, y, yBytes)) {
      throw new GatunException(
          "linear: found other and y that overlap in part, expected y itself or separate memory");
    }
  }

  private static boolean overlap(CudaMemory a, long aBytes, CudaMemory b, long bBytes) {
    return a.address() < b.address() + bBytes && b.address() < a.address() + aBytes;
  }

  private CudaPacked mine(PackedWeight packed) {
    if (Objects.requireNonNull(packed, "packed") instanceof CudaPacked weight
        && weight.backend() == this) {
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
