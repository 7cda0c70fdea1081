package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Rounding;
import dev.gatun.bindings.gatun_h;
import dev.gatun.bindings.gatun_kernel;
import dev.gatun.bindings.gatun_quantize_rule;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/** The operations in C: libgatun through its bindings. Made by {@link NativeProvider}. */
final class NativeBackend implements Backend {
  /** How long an idle thread of the pool looks for work before it sleeps, in microseconds. */
  private static final int SPIN_US = 50;

  /**
   * One row of the library's table.
   *
   * @param index its index there
   * @param isa one of {@code GATUN_ISA_*}
   * @param compute one of {@code GATUN_COMPUTE_*}, or 0
   */
  record Row(int index, Operation operation, int encoding, int compute, int isa, String name) {}

  private static final Object POOL = new Object();

  private final int threads;
  private final int isa;
  private final List<Row> table;
  private final List<Kernel> kernels;

  /**
   * @param threads of an operation that does not say how many; at least 1
   * @param isa one of {@code GATUN_ISA_*}; {@code GATUN_ISA_BEST} for the best that this machine
   *     has
   */
  NativeBackend(int threads, int isa) {
    this.threads = threads;
    this.isa = isa;
    if (isa != gatun_h.GATUN_ISA_BEST()) {
      NativeCalls.check(gatun_h.gatun_isa_check(isa));
    }
    synchronized (POOL) {
      if (gatun_h.gatun_threads() < threads) {
        NativeCalls.check(gatun_h.gatun_threads_set(threads, SPIN_US));
      }
    }
    this.table = table();
    this.kernels = runnable(table);
  }

  /** The whole table of the library, also what this machine cannot run. */
  static List<Row> table() {
    List<Row> rows = new ArrayList<>();
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment row = gatun_kernel.allocate(arena);
      for (int i = 0; i < gatun_h.gatun_kernel_count(); i++) {
        NativeCalls.check(gatun_h.gatun_kernel_at(i, row));
        int operation = gatun_kernel.operation(row);
        rows.add(
            new Row(
                i,
                Arrays.stream(Operation.values())
                    .filter(o -> o.id() == operation)
                    .findFirst()
                    .orElseThrow(),
                gatun_kernel.encoding(row),
                gatun_kernel.compute(row),
                gatun_kernel.isa(row),
                gatun_kernel.name(row).getString(0)));
      }
    }
    return List.copyOf(rows);
  }

  /** What this machine runs, the best instruction set first. */
  private static List<Kernel> runnable(List<Row> table) {
    return table.stream()
        .filter(row -> gatun_h.gatun_isa_check(row.isa()) == gatun_h.GATUN_OK())
        .filter(row -> encoding(row.encoding()).isPresent())
        .sorted(Comparator.comparingInt(Row::isa).reversed())
        .map(
            row ->
                new Kernel(
                    row.operation(),
                    encoding(row.encoding()).orElseThrow(),
                    Compute.multiplies().stream().filter(c -> c.id() == row.compute()).findFirst(),
                    isaName(row.isa()),
                    row.name()))
        .toList();
  }

  static Optional<Encoding> encoding(int id) {
    return Arrays.stream(Encoding.values()).filter(e -> e.id() == id).findFirst();
  }

  static String isaName(int isa) {
    return gatun_h.gatun_isa_name(isa).getString(0);
  }

  int isa() {
    return isa;
  }

  private static String noKernel(Operation operation, Encoding encoding, int compute) {
    String with =
        Compute.multiplies().stream()
            .filter(c -> c.id() == compute)
            .findFirst()
            .map(c -> " with compute " + c)
            .orElse("");
    return ("no kernel for " + operation + " of " + encoding + with).toLowerCase(Locale.ROOT);
  }

  /** The row that the calling thread's last operation ran. */
  Row last() {
    int index = gatun_h.gatun_last_kernel();
    if (index < 0) {
      throw new GatunException("native: no operation has run on this thread");
    }
    return table.get(index);
  }

  @Override
  public String name() {
    return "native";
  }

  @Override
  public List<Kernel> kernels() {
    return kernels;
  }

  @Override
  public Optional<String> kernel(
      Operation operation, Encoding encoding, Optional<Compute> compute) {
    int index =
        gatun_h.gatun_kernel_find(
            operation.id(), compute.map(Compute::id).orElse(0), encoding.id(), isa);
    return index < 0 ? Optional.empty() : Optional.of(table.get(index).name());
  }

  @Override
  public Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute) {
    if (kernel(operation, matrix.encoding(), compute).isEmpty()) {
      return Optional.of(
          noKernel(operation, matrix.encoding(), compute.map(Compute::id).orElse(0)));
    }
    if (operation != Operation.LINEAR && operation != Operation.PACK) {
      return Optional.empty();
    }
    Optional<String> undefined = compute.flatMap(c -> ReferencePacked.refuses(matrix, c));
    if (undefined.isPresent()) {
      return undefined;
    }
    // What can be packed depends on more than the encoding: the library is asked.
    try (Arena arena = Arena.ofConfined()) {
      MatrixCheck.check(matrix);
      int status =
          NativeCalls.packedSize(
              new NativeMatrix(matrix, arena), arena.allocate(ValueLayout.JAVA_LONG));
      return status == gatun_h.GATUN_OK()
          ? Optional.empty()
          : Optional.of(NativeCalls.detail(status));
    } catch (GatunException e) {
      return Optional.of(String.valueOf(e.getMessage()));
    }
  }

  @Override
  public String dequantize(
      Matrix matrix, long row0, long rows, MemorySegment out, Encoding outType) {
    MatrixCheck.rows(matrix, row0, rows, out, outType);
    try (Arena arena = Arena.ofConfined()) {
      NativeMatrix described = new NativeMatrix(matrix, arena);
      Output output = new Output(out, rows * matrix.k(), outType, arena);
      NativeCalls.dequantize(described, row0, rows, output.memory, outType.id(), isa, threads);
      output.copyBack();
    }
    return last().name();
  }

  @Override
  public String embedding(Matrix matrix, long[] ids, MemorySegment out, Encoding outType) {
    MatrixCheck.embedding(matrix, ids, out, outType);
    try (Arena arena = Arena.ofConfined()) {
      NativeMatrix described = new NativeMatrix(matrix, arena);
      Output output = new Output(out, ids.length * matrix.k(), outType, arena);
      NativeCalls.embedding(
          described,
          arena.allocateFrom(ValueLayout.JAVA_LONG, ids),
          ids.length,
          output.memory,
          outType.id(),
          isa,
          threads);
      output.copyBack();
    }
    return last().name();
  }

  @Override
  public String quantize(Matrix matrix, QuantizeRule rule, MemorySegment w, Encoding wType) {
    MatrixCheck.quantize(matrix, rule, w, wType);
    try (Arena arena = Arena.ofConfined()) {
      NativeMatrix described = new NativeMatrix(matrix, arena);
      NativeCalls.quantize(
          described, describe(rule, arena), input(w, wType, arena), wType.id(), isa, threads);
      described.copyBack();
    }
    return last().name();
  }

  @Override
  public Deviation deviation(Matrix matrix, long row0, long rows, MemorySegment w, Encoding wType) {
    MatrixCheck.deviation(matrix, row0, rows, w, wType);
    try (Arena arena = Arena.ofConfined()) {
      NativeMatrix described = new NativeMatrix(matrix, arena);
      MemorySegment sums = arena.allocate(ValueLayout.JAVA_DOUBLE, 3);
      MemorySegment numbers = input(w, wType, arena);
      described.hold(numbers);
      NativeCalls.deviation(described, row0, rows, numbers, wType.id(), sums, isa);
      return new Deviation(
          sums.getAtIndex(ValueLayout.JAVA_DOUBLE, 0),
          sums.getAtIndex(ValueLayout.JAVA_DOUBLE, 1),
          sums.getAtIndex(ValueLayout.JAVA_DOUBLE, 2));
    }
  }

  @Override
  public Backend onOneThread() {
    return threads == 1 ? this : new NativeBackend(1, isa);
  }

  static MemorySegment describe(QuantizeRule rule, Arena arena) {
    MemorySegment struct = gatun_quantize_rule.allocate(arena);
    gatun_quantize_rule.arithmetic(struct, rule.arithmetic().id());
    gatun_quantize_rule.reciprocal(struct, rule.reciprocal() ? 1 : 0);
    gatun_quantize_rule.divisor(struct, rule.divisor());
    gatun_quantize_rule.scale_floor(struct, rule.scaleFloor());
    gatun_quantize_rule.code_min(struct, rule.codeMin());
    gatun_quantize_rule.code_max(struct, rule.codeMax());
    gatun_quantize_rule.keep_scales(struct, rule.keepScales() ? 1 : 0);
    gatun_quantize_rule.zero_code(struct, rule.zeroCode());
    return struct;
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
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment from = input(src.asSlice(0, count * srcType.bits() / 8), srcType, arena);
      Output output = new Output(dst, count, dstType, arena);
      NativeCalls.check(
          gatun_h.gatun_convert(
              from,
              srcType.id(),
              output.memory,
              dstType.id(),
              count,
              saturate ? 1 : 0,
              isa,
              threads));
      output.copyBack();
    }
    return last().name();
  }

  @Override
  public PackedWeight pack(Matrix matrix) {
    MatrixCheck.check(matrix);
    Arena arena = Arena.ofShared();
    boolean done = false;
    try (Arena call = Arena.ofConfined()) {
      NativeMatrix described = new NativeMatrix(matrix, call);
      MemorySegment size = call.allocate(ValueLayout.JAVA_LONG);
      NativeCalls.check(NativeCalls.packedSize(described, size));
      MemorySegment block = NativeCalls.allocate(size.get(ValueLayout.JAVA_LONG, 0), arena);
      NativeCalls.pack(described, block, threads);
      NativePacked packed = new NativePacked(this, MatrixCheck.description(matrix), arena, block);
      done = true;
      return packed;
    } finally {
      if (!done) {
        arena.close();
      }
    }
  }

  /** The form depends on nothing but the library's version of it: not on the instruction set. */
  @Override
  public Optional<String> packedForm() {
    return Optional.of("native." + gatun_h.gatun_packed_version());
  }

  @Override
  public MemorySegment packedBytes(PackedWeight packed) {
    return mine(packed).block();
  }

  @Override
  public PackedWeight adopt(Matrix matrix, MemorySegment bytes, Arena arena) {
    MatrixCheck.check(matrix);
    try (Arena call = Arena.ofConfined()) {
      NativeCalls.check(NativeCalls.packedIs(new NativeMatrix(matrix, call), bytes));
    }
    return new NativePacked(this, MatrixCheck.description(matrix), arena, bytes);
  }

  @Override
  public void unpack(PackedWeight packed, Matrix into) {
    mine(packed).unpack(into);
  }

  @Override
  public void linear(PackedWeight packed, LinearCall<MemorySegment> call) {
    mine(packed).linear(call, threads);
  }

  @Override
  public PackedGroup group(List<PackedGroup.Expert> experts) {
    LinearCheck.experts(experts);
    NativePacked[] weights =
        experts.stream().map(e -> mine(e.packed())).toArray(NativePacked[]::new);
    return new NativeGroup(this, experts, weights, threads);
  }

  @Override
  public void round(
      Rounding rounding,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long rows,
      long columns,
      @Nullable MemorySegment xMultiplier,
      MemorySegment y,
      Encoding yType,
      long ldy,
      int threads) {
    LinearCheck.round(x, xType, ldx, rows, columns, xMultiplier, y, yType, ldy);
    NativeCalls.round(
        rounding,
        x,
        xType,
        ldx,
        rows,
        columns,
        xMultiplier == null ? MemorySegment.NULL : xMultiplier,
        y,
        yType,
        ldy,
        isa,
        threads == 0 ? this.threads : threads);
  }

  private NativePacked mine(PackedWeight packed) {
    if (Objects.requireNonNull(packed, "packed") instanceof NativePacked weight
        && weight.backend() == this) {
      return weight;
    }
    throw new GatunException(
        "native: found a weight that another backend packed, expected one of its own");
  }

  private static MemorySegment input(MemorySegment memory, Encoding type, Arena arena) {
    return memory.isNative() && memory.address() % (type.bits() / 8) == 0
        ? memory
        : arena.allocate(memory.byteSize(), 64).copyFrom(memory);
  }

  /** Where an operation writes: the caller's memory, or a copy of what is in the heap. */
  private static final class Output {
    final MemorySegment memory;
    private final MemorySegment original;
    private final boolean copied;

    Output(MemorySegment original, long count, Encoding type, Arena arena) {
      long bytes = count * (type.bits() / 8);
      this.original = original.asSlice(0, bytes);
      this.copied = !original.isNative() || original.address() % (type.bits() / 8) != 0;
      this.memory = copied ? arena.allocate(bytes, 64) : this.original;
    }

    void copyBack() {
      if (copied) {
        original.copyFrom(memory);
      }
    }
  }
}
