package dev.gatun.layout;

import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixCheck;
import dev.gatun.kernel.Operation;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Operations that any layout shares, since every one describes itself as a {@link Matrix}. Tensors
 * are immutable: each gives a new one. What {@link #copy} and {@link #slice} give has the parts
 * {@code codes}, {@code scales}, {@code zeros}, {@code offsets}, {@code nested_codebook} and {@code
 * nested_scales}, as raw bytes.
 */
public final class GenericOperations {
  private GenericOperations() {}

  /** The same weight, dequantized to another type: F32, F16 or BF16. No memory is copied. */
  public static QuantizedTensor to(QuantizedTensor t, Encoding dtype) {
    if (!dtype.isPlain()) {
      throw new GatunException(t.name() + ": found type " + dtype + ", expected F32, F16 or BF16");
    }
    Matrix m = t.matrix();
    Matrix matrix =
        new Matrix(
            m.n(),
            m.k(),
            m.encoding(),
            m.highNibbleFirst(),
            m.codeRowStride(),
            m.codes(),
            m.granularity(),
            m.scales(),
            m.nested(),
            m.globalScale(),
            m.zeros(),
            m.zeroPoint(),
            m.offsets(),
            m.offsetsSubtracted(),
            m.arithmetic(),
            dtype);
    return new QuantizedTensor(t.name(), t.shape(), t.layout(), t.parts(), matrix, dtype);
  }

  /** A copy whose memory is the arena's. */
  public static QuantizedTensor copy(QuantizedTensor t, Arena arena) {
    Matrix m = t.matrix();
    MatrixCheck.check(m);
    return withMatrix(
        t,
        t.shape(),
        new Matrix(
            m.n(),
            m.k(),
            m.encoding(),
            m.highNibbleFirst(),
            m.codeRowStride(),
            copy(m.codes(), arena),
            m.granularity(),
            m.scales().map(v -> copy(v, arena)),
            m.nested()
                .map(
                    n ->
                        new Matrix.Nested(
                            copy(n.codebook(), arena),
                            copy(n.scales(), arena),
                            n.block(),
                            n.offset())),
            m.globalScale(),
            m.zeros().map(v -> copy(v, arena)),
            m.zeroPoint(),
            m.offsets().map(v -> copy(v, arena)),
            m.offsetsSubtracted(),
            m.arithmetic(),
            m.result()));
  }

  private static Matrix.Values copy(Matrix.Values v, Arena arena) {
    return new Matrix.Values(v.type(), copy(v.data(), arena));
  }

  private static MemorySegment copy(MemorySegment s, Arena arena) {
    return arena.allocate(s.byteSize(), 64).copyFrom(s);
  }

  /**
   * Rows {@code row0 .. row0+rows-1} of the first dimension. No memory is copied.
   *
   * @throws GatunException when the rows are outside, or do not start at a whole byte, scale and
   *     nested scale
   */
  public static QuantizedTensor slice(QuantizedTensor t, long row0, long rows) {
    Matrix m = t.matrix();
    MatrixCheck.check(m);
    if (row0 < 0 || rows < 0 || rows > m.n() - row0) {
      throw new GatunException(
          t.name()
              + ": found a slice of rows "
              + row0
              + " to "
              + row0
              + " + "
              + rows
              + ", expected within 0 to "
              + m.n());
    }
    long element = row0 * m.k();
    if (m.codeRowStride() == 0 && m.encoding().bits() == 4 && (element & 1) != 0) {
      throw new GatunException(
          t.name() + ": found a slice from row " + row0 + ", which starts within a byte");
    }
    long codeAt =
        m.codeRowStride() == 0 ? element * m.encoding().bits() / 8 : row0 * m.codeRowStride();
    long first = rows == 0 ? 0 : firstParameter(t, row0);
    long block = m.nested().map(Matrix.Nested::block).orElse(1L);
    if (first % block != 0) {
      throw new GatunException(
          t.name() + ": found a slice from row " + row0 + ", which starts within a nested block");
    }
    List<Long> shape = new ArrayList<>(t.shape());
    shape.set(0, rows);
    return withMatrix(
        t,
        shape,
        new Matrix(
            rows,
            m.k(),
            m.encoding(),
            m.highNibbleFirst(),
            m.codeRowStride(),
            m.codes().asSlice(Math.min(codeAt, m.codes().byteSize())),
            m.granularity(),
            m.scales().map(v -> from(v, first)),
            m.nested()
                .map(
                    n ->
                        new Matrix.Nested(
                            n.codebook(),
                            n.scales().asSlice(4 * (first / block)),
                            n.block(),
                            n.offset())),
            m.globalScale(),
            m.zeros().map(v -> from(v, first)),
            m.zeroPoint(),
            m.offsets().map(v -> from(v, first)),
            m.offsetsSubtracted(),
            m.arithmetic(),
            m.result()));
  }

  private static Matrix.Values from(Matrix.Values v, long first) {
    return new Matrix.Values(v.type(), v.data().asSlice(first * (v.type().bits() / 8)));
  }

  /** The index of the scale with which a row starts. */
  private static long firstParameter(QuantizedTensor t, long row) {
    Matrix m = t.matrix();
    boolean whole =
        switch (m.granularity()) {
          case Granularity.Tile tile ->
              row % tile.rows() == 0 || (tile.rows() >= m.n() && tile.rowStride() == 0);
          case Granularity.Flat flat -> row * m.k() % flat.block() == 0;
        };
    if (!whole) {
      throw new GatunException(
          t.name() + ": found a slice from row " + row + ", which starts within a scale's block");
    }
    return m.k() == 0 ? 0 : m.granularity().index(row, 0, m.k());
  }

  /**
   * The same elements in another shape, row-major. No memory is copied.
   *
   * @throws GatunException when the number of elements differs, or the scales belong to rows that
   *     change
   */
  public static QuantizedTensor reshape(QuantizedTensor t, List<Long> shape) {
    Matrix m = t.matrix();
    long elements = 1;
    try {
      for (long size : shape) {
        elements = Math.multiplyExact(elements, size);
      }
    } catch (ArithmeticException e) {
      throw new GatunException(t.name() + ": found shape " + shape + ", which overflows", e);
    }
    if (shape.isEmpty() || shape.stream().anyMatch(size -> size < 0) || elements != m.n() * m.k()) {
      throw new GatunException(
          t.name()
              + ": found shape "
              + shape
              + ", expected "
              + m.n() * m.k()
              + " elements as in "
              + t.shape());
    }
    long n = shape.get(0);
    long k = n == 0 ? 0 : elements / n;
    if (n == m.n()) {
      return new QuantizedTensor(t.name(), shape, t.layout(), t.parts(), m, t.dtype());
    }
    boolean perTensor =
        m.granularity() instanceof Granularity.Tile tile
            && tile.rows() >= m.n()
            && tile.cols() >= m.k();
    if (m.codeRowStride() != 0 || !(perTensor || m.granularity() instanceof Granularity.Flat)) {
      throw new GatunException(
          t.name()
              + ": found shape "
              + shape
              + ", expected "
              + m.n()
              + " rows, since scales or codes belong to rows");
    }
    Matrix matrix =
        new Matrix(
            n,
            k,
            m.encoding(),
            m.highNibbleFirst(),
            0,
            m.codes(),
            perTensor ? Granularity.perTensor(n, k) : m.granularity(),
            m.scales(),
            m.nested(),
            m.globalScale(),
            m.zeros(),
            m.zeroPoint(),
            m.offsets(),
            m.offsetsSubtracted(),
            m.arithmetic(),
            m.result());
    return new QuantizedTensor(t.name(), shape, t.layout(), t.parts(), matrix, t.dtype());
  }

  /**
   * The weight as plain numbers, row-major.
   *
   * @param outType F32, F16 or BF16
   * @return the name of the kernel that ran
   */
  public static String dequantize(
      QuantizedTensor t, Device device, MemorySegment out, Encoding outType) {
    Matrix m = t.matrix();
    return LayoutRegistry.get()
        .choose(Operation.DEQUANTIZE, t.layout(), m, 0, Optional.empty(), device)
        .orElseThrow(
            () ->
                new GatunException(
                    t.name() + ": no backend of " + device + " dequantizes " + m.encoding()))
        .backend()
        .dequantize(m, 0, m.n(), out, outType);
  }

  private static QuantizedTensor withMatrix(QuantizedTensor t, List<Long> shape, Matrix m) {
    Map<String, Tensor> parts = new LinkedHashMap<>();
    part(parts, t, "codes", m.codes());
    m.scales().ifPresent(v -> part(parts, t, "scales", v.data()));
    m.zeros().ifPresent(v -> part(parts, t, "zeros", v.data()));
    m.offsets().ifPresent(v -> part(parts, t, "offsets", v.data()));
    m.nested().ifPresent(n -> part(parts, t, "nested_codebook", n.codebook()));
    m.nested().ifPresent(n -> part(parts, t, "nested_scales", n.scales()));
    return new QuantizedTensor(t.name(), shape, t.layout(), parts, m, t.dtype());
  }

  private static void part(
      Map<String, Tensor> parts, QuantizedTensor t, String role, MemorySegment data) {
    parts.put(role, new Tensor(t.name() + "." + role, DType.U8, List.of(data.byteSize()), data));
  }
}
