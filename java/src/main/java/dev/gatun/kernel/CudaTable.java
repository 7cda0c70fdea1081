package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_cuda_kernel;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.Set;

/** The kernel table of libgatun_cuda, which must be loaded: what there is, and what is refused. */
final class CudaTable {
  /** What every form of a weight is multiplied in. */
  private static final Set<Compute> EXACT = Set.of(Compute.F32, Compute.BF16);

  /** One row of the library's table; no kernel when it computes what Java has no word for. */
  record Row(String name, Optional<Backend.Kernel> kernel) {}

  private final List<String> names;
  private final List<Backend.Kernel> kernels;

  CudaTable() {
    List<Row> rows = rows();
    this.names = rows.stream().map(Row::name).toList();
    this.kernels = rows.stream().flatMap(row -> row.kernel().stream()).toList();
  }

  static List<Row> rows() {
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

  private static Optional<Backend.Kernel> kernel(MemorySegment row) {
    int operation = gatun_cuda_kernel.operation(row);
    int id = gatun_cuda_kernel.compute(row);
    Optional<Compute> compute =
        Compute.multiplies().stream().filter(c -> c.id() == id && id != 0).findFirst();
    if (id != 0 && compute.isEmpty()) {
      return Optional.empty();
    }
    return Optional.of(
        new Backend.Kernel(
            Arrays.stream(Operation.values())
                .filter(o -> o.id() == operation)
                .findFirst()
                .orElseThrow(),
            NativeBackend.encoding(gatun_cuda_kernel.encoding(row)).orElseThrow(),
            compute,
            "sm" + gatun_cuda_kernel.sm(row),
            gatun_cuda_kernel.name(row).getString(0)));
  }

  List<Backend.Kernel> kernels() {
    return kernels;
  }

  /** The name of the kernel that the calling thread's last operation ran. */
  String last() {
    int index = gatun_cuda_h.gatun_cuda_last_kernel();
    return index < 0 ? "none" : names.get(index);
  }

  /** See {@link Backend#refuses}; of what the table has a kernel for. */
  static Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute) {
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
    if (codes && (matrix.rotation() != 0 || matrix.codebook().isPresent())) {
      return Optional.of(
          "compute " + compute.get() + " takes no rotation and no codebook of the weight's own");
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
   * How {@code linear} multiplies {@code m} rows of x without bias and epilogue, and why so; empty
   * when it does not.
   *
   * @param device -1 for a GPU like an H100, where there is none
   */
  static Optional<String> way(int device, Matrix matrix, long m, Compute compute) {
    try (Arena arena = Arena.ofConfined()) {
      MatrixCheck.check(matrix);
      MemorySegment described = MatrixStruct.of(matrix, arena, (part, alignment) -> alignment);
      MemorySegment way = arena.allocate(ValueLayout.ADDRESS);
      int status = gatun_cuda_h.gatun_cuda_linear_way(described, device, m, compute.id(), 1, way);
      return status == gatun_h.GATUN_OK()
          ? Optional.of(way.get(gatun_cuda_h.C_POINTER, 0).getString(0))
          : Optional.empty();
    } catch (GatunException e) {
      return Optional.empty();
    }
  }

  static String noKernel(Operation operation, Matrix matrix, Optional<Compute> compute) {
    String with = compute.map(c -> " with compute " + c).orElse("");
    return ("no kernel for " + operation + " of " + matrix.encoding() + with)
        .toLowerCase(Locale.ROOT);
  }
}
