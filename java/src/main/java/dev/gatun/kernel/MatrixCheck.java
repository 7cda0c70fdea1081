package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.GgufQuantizer;
import dev.gatun.kernel.codec.Hadamard;
import java.lang.foreign.MemorySegment;
import java.util.Objects;

/**
 * What must hold before an operation touches the memory of a matrix: every size is compared with
 * what the shape needs, without overflow. {@link LinearCheck} has what multiplying needs. All
 * methods throw {@link GatunException} with one line that says what was found and what was
 * expected.
 */
public final class MatrixCheck {
  private MatrixCheck() {}

  /** The whole description: shape, codes, scales, zeros, offsets and nested scales. */
  public static void check(Matrix m) {
    Objects.requireNonNull(m, "matrix");
    try {
      checkExact(m);
    } catch (ArithmeticException e) {
      throw new GatunException(
          "matrix " + m.n() + " x " + m.k() + ": found sizes whose product overflows", e);
    }
  }

  private static void checkExact(Matrix m) {
    if (m.n() < 0 || m.k() < 0) {
      throw new GatunException(
          "matrix: found shape " + m.n() + " x " + m.k() + ", expected sizes of at least 0");
    }
    if (m.encoding() == Encoding.F8_E8M0) {
      throw new GatunException("matrix: found codes of F8_E8M0, which is for scales only");
    }
    if (!m.arithmetic().isPlain() || !m.result().isPlain()) {
      throw new GatunException(
          "matrix: found arithmetic "
              + m.arithmetic()
              + " and result "
              + m.result()
              + ", expected F32, F16 or BF16");
    }
    need("codes", m.codes(), codeBytes(m));
    if (m.encoding().isBlock()) {
      if (m.memory().size() > 1) {
        throw new GatunException(
            "matrix: found " + m.memory().keySet() + ", expected codes only for " + m.encoding());
      }
      return;
    }
    extras(m);
    long parameters = parameters(m);
    m.scales().ifPresent(s -> scales(m, s, parameters));
    if (m.nested().isPresent() && m.scales().isEmpty()) {
      throw new GatunException("matrix: found nested scales without scale codes");
    }
    m.zeros().ifPresent(z -> values("zero points", z, parameters));
    m.offsets().ifPresent(o -> values("offsets", o, parameters));
    if (m.offsets().isPresent() && !m.offsets().get().type().isPlain()) {
      throw new GatunException(
          "offsets: found " + m.offsets().get().type() + ", expected F32, F16 or BF16");
    }
  }

  /** What few formats have: codebook, column groups, row scales and rotation. */
  private static void extras(Matrix m) {
    if (m.codebook().isPresent()) {
      if (m.encoding().bits() > 8) {
        throw new GatunException("codebook: found one for " + m.encoding());
      }
      need("codebook", m.codebook().get(), 4L << m.encoding().bits());
    }
    if (m.columnGroups().isPresent()) {
      need("column groups", m.columnGroups().get(), Math.multiplyExact(m.k(), 4));
      if (!(m.granularity() instanceof Granularity.Tile)) {
        throw new GatunException("column groups: found flat blocks, expected scales of tiles");
      }
    }
    m.rowScales().ifPresent(r -> need("row scales", r, Math.multiplyExact(m.n(), 4)));
    if (m.rotation() != 0 && (!Hadamard.exists(m.rotation()) || m.k() % m.rotation() != 0)) {
      throw new GatunException(
          "rotation: found size "
              + m.rotation()
              + " for K = "
              + m.k()
              + ", expected a power of 4 that divides K");
    }
  }

  private static void scales(Matrix m, Matrix.Values scales, long count) {
    switch (scales.type()) {
      case F32, F16, BF16, F8_E4M3, F8_E8M0, U8 -> {}
      default ->
          throw new GatunException(
              "scales: found "
                  + scales.type()
                  + ", expected F32, F16, BF16, F8_E4M3, F8_E8M0 or nested U8");
    }
    if ((scales.type() == Encoding.U8) != m.nested().isPresent()) {
      throw new GatunException(
          "scales: found "
              + scales.type()
              + (m.nested().isPresent() ? " with" : " without")
              + " nested scales, expected U8 codes exactly when there are nested scales");
    }
    long stored = m.scaleOrder() == ScaleOrder.BLOCKED_128X4 ? blockedScales(m) : count;
    need("scales", scales.data(), Math.multiplyExact(stored, scales.type().bits() / 8));
    if (m.nested().isPresent()) {
      Matrix.Nested nested = m.nested().get();
      if (nested.block() < 1) {
        throw new GatunException(
            "nested scales: found block " + nested.block() + ", expected at least 1");
      }
      need("nested codebook", nested.codebook(), 1024);
      long blocks = stored == 0 ? 0 : (stored - 1) / nested.block() + 1;
      need("nested scales", nested.scales(), Math.multiplyExact(blocks, 4));
    }
  }

  private static void values(String what, Matrix.Values values, long count) {
    switch (values.type()) {
      case F32, F16, BF16, I8, U8 -> {}
      default ->
          throw new GatunException(
              what + ": found " + values.type() + ", expected F32, F16, BF16, I8 or U8");
    }
    need(what, values.data(), Math.multiplyExact(count, values.type().bits() / 8));
  }

  /** How many scales whole tiles of 128 × 4 hold. */
  private static long blockedScales(Matrix m) {
    if (m.granularity() instanceof Granularity.Tile tile) {
      long down = Math.ceilDiv(Math.ceilDiv(m.n(), tile.rows()), 128L);
      long across = Math.ceilDiv(Math.ceilDiv(m.k(), tile.cols()), 4L);
      return Math.multiplyExact(Math.multiplyExact(down, across), 512L);
    }
    throw new GatunException("scales: found flat blocks in the order " + m.scaleOrder());
  }

  /** Bytes of codes that the shape needs. */
  public static long codeBytes(Matrix m) {
    return Codes.bytes(m);
  }

  /** How many scales (zeros, offsets) the shape needs. */
  public static long parameters(Matrix m) {
    long elements = Math.multiplyExact(m.n(), m.k());
    return switch (m.granularity()) {
      case Granularity.Flat(long block) -> {
        if (block < 1) {
          throw new GatunException(
              "granularity: found blocks of " + block + " elements, expected at least 1");
        }
        yield elements == 0 ? 0 : (elements - 1) / block + 1;
      }
      case Granularity.Tile(long rows, long cols, long rowStride, long colStride) -> {
        if (rows < 1 || cols < 1 || rowStride < 0 || colStride < 0) {
          throw new GatunException(
              "granularity: found tiles of "
                  + rows
                  + " x "
                  + cols
                  + " with strides "
                  + rowStride
                  + " and "
                  + colStride
                  + ", expected sizes of at least 1 and strides of at least 0");
        }
        yield elements == 0
            ? 0
            : Math.addExact(
                1,
                Math.addExact(
                    Math.multiplyExact((m.n() - 1) / rows, rowStride),
                    Math.multiplyExact(lastColumn(m, cols), colStride)));
      }
    };
  }

  /** The largest scale column. */
  private static long lastColumn(Matrix m, long cols) {
    if (m.columnGroups().isEmpty()) {
      return (m.k() - 1) / cols;
    }
    long[] range = MatrixValues.groupRange(m.columnGroups().get(), m.k());
    if (range[0] < 0) {
      throw new GatunException(
          "column groups: found group " + range[0] + ", expected numbers of at least 0");
    }
    return range[1];
  }

  /** Rows {@code row0 .. row0+rows-1} of a matrix into {@code out}. */
  public static void rows(Matrix m, long row0, long rows, MemorySegment out, Encoding outType) {
    check(m);
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
  }

  /** Rows {@code row0 .. row0+rows-1} of a matrix beside the numbers that they were made of. */
  static void deviation(Matrix m, long row0, long rows, MemorySegment w, Encoding wType) {
    check(m);
    if (row0 < 0 || rows < 0 || rows > m.n() - row0 || !wType.isPlain()) {
      throw new GatunException(
          "deviation: found rows "
              + row0
              + " to "
              + row0
              + " + "
              + rows
              + " of "
              + wType
              + ", expected within 0 to "
              + m.n()
              + " of F32, F16 or BF16");
    }
    need("deviation input", w, product("deviation", rows, m.k(), wType.bits() / 8));
  }

  /** A gather of rows into {@code out}. */
  public static void embedding(Matrix m, long[] ids, MemorySegment out, Encoding outType) {
    check(m);
    for (int i = 0; i < ids.length; i++) {
      if (ids[i] < 0 || ids[i] >= m.n()) {
        throw new GatunException(
            "embedding: found id " + ids[i] + " at index " + i + ", expected 0 to " + (m.n() - 1));
      }
    }
    output("embedding", m, ids.length, out, outType);
  }

  private static void output(
      String operation, Matrix m, long rows, MemorySegment out, Encoding outType) {
    if (!outType.isPlain()) {
      throw new GatunException(
          operation + ": found output type " + outType + ", expected F32, F16 or BF16");
    }
    if (out.isReadOnly()) {
      throw new GatunException(
          operation + ": found a read-only output, expected one that can be written");
    }
    need(operation + " output", out, product(operation, rows, m.k(), outType.bits() / 8));
  }

  /** Quantizing N × K numbers into the matrix's codes and scales. */
  public static void quantize(Matrix m, QuantizeRule rule, MemorySegment w, Encoding wType) {
    check(m);
    if (!wType.isPlain() || m.encoding().isPlain()) {
      throw new GatunException(
          "quantize: found "
              + wType
              + " to "
              + m.encoding()
              + ", expected F32, F16 or BF16 to a quantized encoding");
    }
    if (m.codes().isReadOnly()) {
      throw new GatunException(
          "quantize: found read-only codes, expected ones that can be written");
    }
    need("quantize input", w, product("quantize", m.n(), m.k(), wType.bits() / 8));
    if (m.encoding().isBlock()) {
      if (!GgufQuantizer.writes(m.encoding())) {
        throw new GatunException("quantize: found " + m.encoding() + ", which is not written");
      }
      return; // blocks have one rule each
    }
    if (m.codebook().isPresent()
        || m.columnGroups().isPresent()
        || m.rowScales().isPresent()
        || m.rotation() != 0) {
      throw new GatunException(
          "quantize: found a codebook, column groups, row scales or a rotation, expected none");
    }
    if (!rule.arithmetic().isPlain()) {
      throw new GatunException(
          "quantize: found arithmetic " + rule.arithmetic() + ", expected F32, F16 or BF16");
    }
    if (rule.zeroCode() < -1 || rule.zeroCode() >= 1 << m.encoding().bits()) {
      throw new GatunException(
          "quantize: found zero code " + rule.zeroCode() + ", expected -1 or a code");
    }
    if (!rule.keepScales()) {
      if (m.scales().isEmpty() || !m.scales().get().type().isPlain()) {
        throw new GatunException(
            "quantize: found scales of type "
                + m.scales().map(s -> s.type().name()).orElse("none")
                + ", expected F32, F16 or BF16 to be written");
      }
      if (m.scales().get().data().isReadOnly()) {
        throw new GatunException(
            "quantize: found read-only scales, expected ones that can be written");
      }
    }
  }

  /** Converting {@code count} numbers. */
  public static void convert(
      MemorySegment src, Encoding srcType, MemorySegment dst, Encoding dstType, long count) {
    if (!isNumber(srcType) || !isNumber(dstType)) {
      throw new GatunException(
          "convert: found "
              + srcType
              + " to "
              + dstType
              + ", expected F32, F16, BF16 or 8-bit floats");
    }
    if (count < 0) {
      throw new GatunException("convert: found a count of " + count + ", expected at least 0");
    }
    if (dst.isReadOnly()) {
      throw new GatunException(
          "convert: found a read-only destination, expected one that can be written");
    }
    need("convert source", src, product("convert", count, 1, srcType.bits() / 8));
    need("convert destination", dst, product("convert", count, 1, dstType.bits() / 8));
  }

  private static boolean isNumber(Encoding type) {
    return type.isPlain() || Fp8.is(type);
  }

  /** The description without the data: what {@link #unpack} compares. */
  public static Matrix description(Matrix m) {
    return m.withMemory(data -> MemorySegment.NULL);
  }

  /** Unpacking into buffers that must be described as the packed matrix was, and writable. */
  public static void unpack(Matrix packed, Matrix into) {
    check(into);
    if (!description(packed).equals(description(into))) {
      throw new GatunException(
          "unpack: found buffers for "
              + describe(into)
              + ", expected the description that was packed: "
              + describe(packed));
    }
    if (into.memory().values().stream().anyMatch(MemorySegment::isReadOnly)) {
      throw new GatunException(
          "unpack: found a read-only buffer, expected ones that can be written");
    }
  }

  private static String describe(Matrix m) {
    return m.n()
        + " x "
        + m.k()
        + " "
        + m.encoding()
        + ", scales "
        + m.scales().map(s -> s.type().name()).orElse("none")
        + ", "
        + m.granularity();
  }

  private static long product(String what, long a, long b, long c) {
    try {
      return Math.multiplyExact(Math.multiplyExact(a, b), c);
    } catch (ArithmeticException e) {
      throw new GatunException(
          what + ": found " + a + " x " + b + " numbers of " + c + " bytes, which overflows", e);
    }
  }

  private static void need(String what, MemorySegment segment, long bytes) {
    if (segment.byteSize() < bytes) {
      throw new GatunException(
          what + ": found " + segment.byteSize() + " bytes, expected at least " + bytes);
    }
  }
}
