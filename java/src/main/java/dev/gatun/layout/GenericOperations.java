package dev.gatun.layout;

import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixCheck;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.Operation;
import dev.gatun.kernel.ScaleOrder;
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
 * that {@link Matrix#memory} names, as raw bytes.
 */
public final class GenericOperations {
  private GenericOperations() {}

  /** The same weight, dequantized to another type: F32, F16 or BF16. No memory is copied. */
  public static QuantizedTensor to(QuantizedTensor t, Encoding dtype) {
    if (!dtype.isPlain()) {
      throw new GatunException(t.name() + ": found type " + dtype + ", expected F32, F16 or BF16");
    }
    Matrix matrix = t.matrix().withResult(dtype);
    return t.with(t.shape(), t.parts(), matrix, dtype);
  }

  /** A copy whose memory is the arena's. */
  public static QuantizedTensor copy(QuantizedTensor t, Arena arena) {
    Matrix m = t.matrix();
    MatrixCheck.check(m);
    return withMatrix(
        t, t.shape(), m.withMemory(data -> arena.allocate(data.byteSize(), 64).copyFrom(data)));
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
    if (m.codeOrder().id() > CodeOrder.WORDS.id()) {
      throw new GatunException(
          t.name()
              + ": found codes in the order "
              + m.codeOrder()
              + ", which has no rows to slice");
    }
    long codeAt = row0 == 0 ? 0 : MatrixCheck.codeBytes(m.toBuilder().shape(row0, m.k()).build());
    boolean flat = m.codeRowStride() == 0 && m.codeOrder() != CodeOrder.WORDS;
    if (flat && row0 * m.k() * m.encoding().bits() % 8 != 0) {
      throw new GatunException(
          t.name() + ": found a slice from row " + row0 + ", which starts within a byte");
    }
    if (m.codeRowStride() != 0) {
      codeAt = row0 * m.codeRowStride();
    }
    boolean none = rows == 0 || m.k() == 0 || m.encoding().isBlock();
    if (!none) {
      checkParameterStart(t, row0);
    }
    long first = none ? 0 : MatrixValues.index(m, row0, 0);
    long firstScale = none ? 0 : MatrixValues.scaleIndex(m, row0, 0);
    long all = MatrixCheck.parameters(m);
    long block = m.nested().map(Matrix.Nested::block).orElse(1L);
    boolean one = block >= all; // a single nested scale serves every row
    if (!one && firstScale % block != 0) {
      throw new GatunException(
          t.name() + ": found a slice from row " + row0 + ", which starts within a nested block");
    }
    long nestedAt = one ? 0 : 4 * (firstScale / block);
    Matrix.Builder b =
        m.toBuilder()
            .shape(rows, m.k())
            .codes(m.codes().asSlice(Math.min(codeAt, m.codes().byteSize())))
            .scales(m.scales().map(v -> from(v, firstScale)))
            .zeros(m.zeros().map(v -> from(v, first)))
            .nested(
                m.nested()
                    .map(
                        n ->
                            new Matrix.Nested(
                                n.codebook(),
                                n.scales().asSlice(nestedAt),
                                n.block(),
                                n.offset())));
    m.offsets()
        .map(v -> from(v, first))
        .ifPresent(m.offsetsSubtracted() ? b::subtracted : b::offsets);
    m.rowScales().ifPresent(v -> b.rowScales(v.asSlice(4 * row0)));
    List<Long> shape = new ArrayList<>(t.shape());
    shape.set(0, rows);
    return withMatrix(t, shape, b.build());
  }

  private static Matrix.Values from(Matrix.Values v, long first) {
    return new Matrix.Values(v.type(), v.data().asSlice(first * (v.type().bits() / 8)));
  }

  /** Refuses a row that does not start with a scale of its own. */
  private static void checkParameterStart(QuantizedTensor t, long row) {
    Matrix m = t.matrix();
    boolean whole =
        switch (m.granularity()) {
          case Granularity.Tile tile ->
              row % tile.rows() == 0 || (tile.rows() >= m.n() && tile.rowStride() == 0);
          case Granularity.Flat flat -> row * m.k() % flat.block() == 0;
        };
    boolean blocked = m.scaleOrder() == ScaleOrder.BLOCKED_128X4 && row % 128 != 0;
    if (!whole || blocked) {
      throw new GatunException(
          t.name() + ": found a slice from row " + row + ", which starts within a scale's block");
    }
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
      return t.with(shape, t.parts(), m, t.dtype());
    }
    boolean perTensor =
        m.granularity() instanceof Granularity.Tile tile
            && tile.rows() >= m.n()
            && tile.cols() >= m.k();
    boolean plain =
        m.columnGroups().isEmpty() && m.rowScales().isEmpty() && !m.encoding().isBlock();
    boolean stream =
        m.codeRowStride() == 0
            && m.codeOrder().id() <= CodeOrder.BITS.id()
            && plain
            && m.rotation() <= 1;
    long group = groupOfRun(m);
    if (m.codeOrder() == CodeOrder.SPLIT_ROWS && plain && group > 0 && k % group == 0) {
      Matrix groups = m.toBuilder().shape(n, k).granularity(Granularity.perGroup(k, group)).build();
      return t.with(shape, t.parts(), groups, t.dtype());
    }
    if (!stream || !(perTensor || m.granularity() instanceof Granularity.Flat)) {
      throw new GatunException(
          t.name()
              + ": found shape "
              + shape
              + ", expected "
              + m.n()
              + " rows, since scales or codes belong to rows");
    }
    Matrix matrix =
        m.toBuilder()
            .shape(n, k)
            .granularity(perTensor ? Granularity.perTensor(n, k) : m.granularity())
            .build();
    return t.with(shape, t.parts(), matrix, t.dtype());
  }

  /** How many consecutive elements share a scale when scales follow one another; 0: they do not. */
  private static long groupOfRun(Matrix m) {
    return m.granularity() instanceof Granularity.Tile t
            && t.equals(Granularity.perGroup(m.k(), t.cols()))
            && m.k() % t.cols() == 0
        ? t.cols()
        : 0;
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
    m.memory().forEach((role, data) -> part(parts, t, role, data));
    for (String role :
        List.of(
            QuantizedTensor.INPUT_MULTIPLIER,
            QuantizedTensor.INPUT_SCALE,
            QuantizedTensor.OUTPUT_SCALE)) {
      t.part(role).ifPresent(part -> parts.put(role, part));
    }
    return t.with(shape, parts, m, t.dtype());
  }

  private static void part(
      Map<String, Tensor> parts, QuantizedTensor t, String role, MemorySegment data) {
    parts.put(role, new Tensor(t.name() + "." + role, DType.U8, List.of(data.byteSize()), data));
  }
}
