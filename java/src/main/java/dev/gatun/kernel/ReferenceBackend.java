package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.GgufBlocks;
import dev.gatun.kernel.codec.GgufQuantizer;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.Optional;

/**
 * The definition of every operation: plain loops on one thread, sums in double, one rounding at the
 * end. Every other backend is tested against it.
 */
public final class ReferenceBackend implements Backend {
  private static final String ISA = "reference";

  /** Elements of a row that are decoded at once. */
  private static final int PIECE = 4096;

  private static final List<Kernel> KERNELS = table();

  /** A backend without state. */
  public ReferenceBackend() {}

  private static List<Kernel> table() {
    List<Kernel> kernels = new ArrayList<>();
    for (Encoding e : Encoding.values()) {
      if (e.isPlain() || Fp8.is(e)) {
        kernels.add(entry(Operation.CONVERT, e, Optional.empty()));
      }
      if (e == Encoding.F8_E8M0 || (e.isBlock() && !GgufBlocks.decodes(e))) {
        continue;
      }
      for (Operation o :
          List.of(Operation.DEQUANTIZE, Operation.EMBEDDING, Operation.PACK, Operation.UNPACK)) {
        kernels.add(entry(o, e, Optional.empty()));
      }
      if (e.isBlock() ? GgufQuantizer.writes(e) : !e.isPlain()) {
        kernels.add(entry(Operation.QUANTIZE, e, Optional.empty()));
      }
      for (Compute c : Compute.multiplies()) {
        if (ReferencePacked.hasCodes(e, c)) {
          kernels.add(entry(Operation.LINEAR, e, Optional.of(c)));
        }
      }
    }
    return List.copyOf(kernels);
  }

  private static Kernel entry(Operation operation, Encoding encoding, Optional<Compute> compute) {
    return new Kernel(operation, encoding, compute, ISA, kernelName(operation, encoding, compute));
  }

  private static String kernelName(
      Operation operation, Encoding encoding, Optional<Compute> compute) {
    String activation = compute.map(c -> "_" + c).orElse("");
    return (operation + activation + "_" + encoding + "__" + ISA).toLowerCase(Locale.ROOT);
  }

  /** The name of {@code linear}'s kernel; looked up, so that nothing is allocated per call. */
  static String linearName(Encoding encoding, Compute compute) {
    for (Kernel kernel : KERNELS) {
      if (kernel.encoding() == encoding
          && kernel.compute().isPresent()
          && kernel.compute().get() == compute) {
        return kernel.name();
      }
    }
    throw new GatunException(
        "reference: " + noKernel(Operation.LINEAR, encoding, Optional.of(compute)));
  }

  private static String noKernel(
      Operation operation, Encoding encoding, Optional<Compute> compute) {
    String with = compute.map(c -> " with compute " + c).orElse("");
    return ("no kernel for " + operation + " of " + encoding + with).toLowerCase(Locale.ROOT);
  }

  @Override
  public String name() {
    return "reference";
  }

  @Override
  public List<Kernel> kernels() {
    return KERNELS;
  }

  @Override
  public Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute) {
    if (kernel(operation, matrix.encoding(), compute).isPresent()) {
      if (operation == Operation.LINEAR && matrix.k() > ReferencePacked.MAX_K) {
        return Optional.of("K = " + matrix.k() + " is more than " + ReferencePacked.MAX_K);
      }
      return compute.flatMap(c -> ReferencePacked.refuses(matrix, c));
    }
    return Optional.of(noKernel(operation, matrix.encoding(), compute));
  }

  @Override
  public String dequantize(
      Matrix matrix, long row0, long rows, MemorySegment out, Encoding outType) {
    MatrixCheck.rows(matrix, row0, rows, out, outType);
    float[] piece = new float[PIECE];
    for (long row = 0; row < rows; row++) {
      writeRow(matrix, row0 + row, row, out, outType, piece);
    }
    return kernelName(Operation.DEQUANTIZE, matrix.encoding(), Optional.empty());
  }

  @Override
  public String embedding(Matrix matrix, long[] ids, MemorySegment out, Encoding outType) {
    MatrixCheck.embedding(matrix, ids, out, outType);
    float[] piece = new float[PIECE];
    for (int i = 0; i < ids.length; i++) {
      writeRow(matrix, ids[i], i, out, outType, piece);
    }
    return kernelName(Operation.EMBEDDING, matrix.encoding(), Optional.empty());
  }

  private static void writeRow(
      Matrix m, long from, long to, MemorySegment out, Encoding outType, float[] piece) {
    for (long column = 0; column < m.k(); column += PIECE) {
      int count = (int) Math.min(PIECE, m.k() - column);
      MatrixValues.row(m, from, column, count, piece);
      for (int i = 0; i < count; i++) {
        Numbers.put(outType, out, to * m.k() + column + i, piece[i]);
      }
    }
  }

  @Override
  public String quantize(Matrix matrix, QuantizeRule rule, MemorySegment w, Encoding wType) {
    MatrixCheck.quantize(matrix, rule, w, wType);
    new ReferenceQuantizer(matrix, rule, w, wType).run();
    return kernelName(Operation.QUANTIZE, matrix.encoding(), Optional.empty());
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
    boolean clamp = saturate && Fp8.is(dstType);
    float max = clamp ? Fp8.max(dstType) : 0;
    for (long i = 0; i < count; i++) {
      float value = Numbers.get(srcType, src, i);
      // NaN stays NaN
      Numbers.put(
          dstType, dst, i, clamp && !Float.isNaN(value) ? Math.clamp(value, -max, max) : value);
    }
    return kernelName(Operation.CONVERT, dstType, Optional.empty());
  }

  @Override
  public PackedWeight pack(Matrix matrix) {
    MatrixCheck.check(matrix);
    return new ReferencePacked(matrix);
  }

  @Override
  public void unpack(PackedWeight packed, Matrix into) {
    mine(packed).unpack(into);
  }

  @Override
  public void linear(PackedWeight packed, LinearCall<MemorySegment> call) {
    ReferencePacked weight = mine(packed);
    call.check(weight.n(), weight.k());
    weight.linear(call);
  }

  private static ReferencePacked mine(PackedWeight packed) {
    if (Objects.requireNonNull(packed, "packed") instanceof ReferencePacked weight) {
      return weight;
    }
    throw new GatunException(
        "reference: found a weight that another backend packed, expected one of its own");
  }
}
