package dev.gatun.kernel;

import dev.gatun.Encoding;
import java.lang.foreign.MemorySegment;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.UnaryOperator;

/**
 * One weight matrix as it lies in memory: all that is needed to dequantize it, whatever checkpoint
 * format it came from. The Java face of {@code gatun_matrix} in {@code gatun.h}, with the same
 * definition:
 *
 * <pre>value(n, k) = round_result(round_arith((decode(code) - zero) * scale') + offset)</pre>
 *
 * where {@code scale'} is the scale rounded to {@code arithmetic}, and product and sum are each
 * rounded to {@code arithmetic}.
 *
 * <p>With {@code rowScales} the product is rounded to an integer, ties to even, clamped to ±127,
 * multiplied by the row's scale, and that rounded to {@code result}. With a {@code rotation} of G
 * each run of G values of a row is then multiplied by the Hadamard matrix {@code kron(H4, H4, …) /
 * √G}, H4 = [[1,1,1,-1], [1,1,-1,1], [1,-1,1,1], [-1,1,1,1]], its sums made in double and rounded
 * to float, before {@code result}.
 *
 * <p>The self-contained blocks of GGUF carry their own scales: only shape, codes, row stride,
 * result and the global scale are set, and the global scale multiplies the decoded numbers.
 *
 * @param n rows: output features
 * @param k columns: input features
 * @param encoding of the codes
 * @param codeOrder how the codes lie
 * @param codeRowStride bytes from a row of codes to the next; 0: no padding
 * @param codes the codes
 * @param granularity which weights share a scale (and a zero and an offset)
 * @param scales absent: every scale is 1
 * @param scaleOrder how the scales lie; zeros and offsets are always strided
 * @param nested for scales of type U8: how they are decoded
 * @param globalScale multiplies every scale; 1 when the format has none
 * @param zeros subtracted from the code before scaling; absent: {@code zeroPoint} is
 * @param zeroPoint subtracted from every code when there are no {@code zeros}
 * @param offsets added after scaling
 * @param offsetsSubtracted whether they are subtracted instead
 * @param arithmetic F32, F16 or BF16: what the format's own library computes in
 * @param result F32, F16 or BF16: what the format's own library dequantizes to
 * @param codebook 2^bits floats: what a code means, instead of the encoding's own values
 * @param columnGroups K 32-bit integers: the scale column of each k, instead of k / tile columns
 *     (GPTQ's g_idx)
 * @param rowScales N floats, see above (ComfyUI's asym_w4a8_int8)
 * @param rotation G, a power of 4; 0: none (ComfyUI's convrot)
 */
public record Matrix(
    long n,
    long k,
    Encoding encoding,
    CodeOrder codeOrder,
    long codeRowStride,
    MemorySegment codes,
    Granularity granularity,
    Optional<Values> scales,
    ScaleOrder scaleOrder,
    Optional<Nested> nested,
    float globalScale,
    Optional<Values> zeros,
    int zeroPoint,
    Optional<Values> offsets,
    boolean offsetsSubtracted,
    Encoding arithmetic,
    Encoding result,
    Optional<MemorySegment> codebook,
    Optional<MemorySegment> columnGroups,
    Optional<MemorySegment> rowScales,
    int rotation) {

  /** Refuses null. */
  public Matrix {
    Objects.requireNonNull(encoding, "encoding");
    Objects.requireNonNull(codeOrder, "codeOrder");
    Objects.requireNonNull(codes, "codes");
    Objects.requireNonNull(granularity, "granularity");
    Objects.requireNonNull(scales, "scales");
    Objects.requireNonNull(scaleOrder, "scaleOrder");
    Objects.requireNonNull(nested, "nested");
    Objects.requireNonNull(zeros, "zeros");
    Objects.requireNonNull(offsets, "offsets");
    Objects.requireNonNull(arithmetic, "arithmetic");
    Objects.requireNonNull(result, "result");
    Objects.requireNonNull(codebook, "codebook");
    Objects.requireNonNull(columnGroups, "columnGroups");
    Objects.requireNonNull(rowScales, "rowScales");
  }

  /** An array of numbers of one type. */
  public record Values(Encoding type, MemorySegment data) {
    /** Refuses null. */
    public Values {
      Objects.requireNonNull(type, "type");
      Objects.requireNonNull(data, "data");
    }
  }

  /**
   * Double quantization: {@code scale = codebook[code] * scales[index / block] + offset}.
   *
   * @param codebook 256 floats
   * @param scales floats, one per {@code block} scale codes
   */
  public record Nested(MemorySegment codebook, MemorySegment scales, long block, float offset) {
    /** Refuses null. */
    public Nested {
      Objects.requireNonNull(codebook, "codebook");
      Objects.requireNonNull(scales, "scales");
    }
  }

  /**
   * A matrix to be described: codes lowest bits first without padding, one scale of 1 for all, and
   * F32 arithmetic and result, until said otherwise.
   */
  public static Builder builder(long n, long k, Encoding encoding, MemorySegment codes) {
    return new Builder(n, k, encoding, codes);
  }

  /** The same matrix, to be described differently. */
  public Builder toBuilder() {
    return new Builder(this);
  }

  /** The same matrix, dequantized to another type: F32, F16 or BF16. */
  public Matrix withResult(Encoding type) {
    return toBuilder().result(type).build();
  }

  /**
   * Every piece of memory by role: {@code codes}, {@code scales}, {@code zeros}, {@code offsets},
   * {@code nested_codebook}, {@code nested_scales}, {@code codebook}, {@code column_groups}, {@code
   * row_scales}; those that there are, in this order.
   */
  public Map<String, MemorySegment> memory() {
    Map<String, MemorySegment> memory = new LinkedHashMap<>();
    memory.put("codes", codes);
    scales.ifPresent(v -> memory.put("scales", v.data));
    zeros.ifPresent(v -> memory.put("zeros", v.data));
    offsets.ifPresent(v -> memory.put("offsets", v.data));
    nested.ifPresent(v -> memory.put("nested_codebook", v.codebook));
    nested.ifPresent(v -> memory.put("nested_scales", v.scales));
    codebook.ifPresent(v -> memory.put("codebook", v));
    columnGroups.ifPresent(v -> memory.put("column_groups", v));
    rowScales.ifPresent(v -> memory.put("row_scales", v));
    return memory;
  }

  /** The same description with every piece of memory replaced: by its copy, for one. */
  public Matrix withMemory(UnaryOperator<MemorySegment> replace) {
    Builder b = toBuilder();
    b.codes = replace.apply(codes);
    b.scales = scales.map(v -> new Values(v.type, replace.apply(v.data)));
    b.zeros = zeros.map(v -> new Values(v.type, replace.apply(v.data)));
    b.offsets = offsets.map(v -> new Values(v.type, replace.apply(v.data)));
    b.nested =
        nested.map(
            v -> new Nested(replace.apply(v.codebook), replace.apply(v.scales), v.block, v.offset));
    b.codebook = codebook.map(replace);
    b.columnGroups = columnGroups.map(replace);
    b.rowScales = rowScales.map(replace);
    return b.build();
  }

  /** Describes a matrix piece by piece. */
  public static final class Builder {
    private long n;
    private long k;
    private Encoding encoding;
    private CodeOrder codeOrder = CodeOrder.LOW_FIRST;
    private long codeRowStride;
    private MemorySegment codes;
    private Granularity granularity;
    private Optional<Values> scales = Optional.empty();
    private ScaleOrder scaleOrder = ScaleOrder.STRIDED;
    private Optional<Nested> nested = Optional.empty();
    private float globalScale = 1f;
    private Optional<Values> zeros = Optional.empty();
    private int zeroPoint;
    private Optional<Values> offsets = Optional.empty();
    private boolean offsetsSubtracted;
    private Encoding arithmetic = Encoding.F32;
    private Encoding result = Encoding.F32;
    private Optional<MemorySegment> codebook = Optional.empty();
    private Optional<MemorySegment> columnGroups = Optional.empty();
    private Optional<MemorySegment> rowScales = Optional.empty();
    private int rotation;

    private Builder(long n, long k, Encoding encoding, MemorySegment codes) {
      this.n = n;
      this.k = k;
      this.encoding = encoding;
      this.codes = codes;
      this.granularity = Granularity.perTensor(n, k);
    }

    private Builder(Matrix m) {
      n = m.n;
      k = m.k;
      encoding = m.encoding;
      codeOrder = m.codeOrder;
      codeRowStride = m.codeRowStride;
      codes = m.codes;
      granularity = m.granularity;
      scales = m.scales;
      scaleOrder = m.scaleOrder;
      nested = m.nested;
      globalScale = m.globalScale;
      zeros = m.zeros;
      zeroPoint = m.zeroPoint;
      offsets = m.offsets;
      offsetsSubtracted = m.offsetsSubtracted;
      arithmetic = m.arithmetic;
      result = m.result;
      codebook = m.codebook;
      columnGroups = m.columnGroups;
      rowScales = m.rowScales;
      rotation = m.rotation;
    }

    /** Rows and columns. */
    public Builder shape(long rows, long columns) {
      n = rows;
      k = columns;
      return this;
    }

    /** The codes, described as before. */
    public Builder codes(MemorySegment data) {
      codes = data;
      return this;
    }

    /** How the codes lie, without padding. */
    public Builder codeOrder(CodeOrder order) {
      return codeOrder(order, 0);
    }

    /** How the codes lie, and the bytes from one row of them to the next. */
    public Builder codeOrder(CodeOrder order, long rowStride) {
      codeOrder = order;
      codeRowStride = rowStride;
      return this;
    }

    /** Which weights share a scale. */
    public Builder granularity(Granularity shared) {
      granularity = shared;
      return this;
    }

    /** The scales. */
    public Builder scales(Values values) {
      scales = Optional.of(values);
      return this;
    }

    /** The scales, if there are any. */
    public Builder scales(Optional<Values> values) {
      scales = values;
      return this;
    }

    /** How the scales lie. */
    public Builder scaleOrder(ScaleOrder order) {
      scaleOrder = order;
      return this;
    }

    /** How scales of type U8 are decoded. */
    public Builder nested(Optional<Nested> decoding) {
      nested = decoding;
      return this;
    }

    /** A scale of the scales. */
    public Builder globalScale(float scale) {
      globalScale = scale;
      return this;
    }

    /** One zero point for every code. */
    public Builder zeroPoint(int zero) {
      zeroPoint = zero;
      return this;
    }

    /** Zero points, one beside each scale, if there are any. */
    public Builder zeros(Optional<Values> values) {
      zeros = values;
      return this;
    }

    /** What is added after scaling. */
    public Builder offsets(Values values) {
      offsets = Optional.of(values);
      offsetsSubtracted = false;
      return this;
    }

    /** What is subtracted after scaling. */
    public Builder subtracted(Values values) {
      offsets = Optional.of(values);
      offsetsSubtracted = true;
      return this;
    }

    /** What is computed in: F32, F16 or BF16. */
    public Builder arithmetic(Encoding type) {
      arithmetic = type;
      return this;
    }

    /** What it is dequantized to: F32, F16 or BF16. */
    public Builder result(Encoding type) {
      result = type;
      return this;
    }

    /** 2^bits floats instead of the encoding's own values, if there are any. */
    public Builder codebook(Optional<MemorySegment> values) {
      codebook = values;
      return this;
    }

    /** The scale column of each k as a 32-bit integer, if they are not in order. */
    public Builder columnGroups(Optional<MemorySegment> groups) {
      columnGroups = groups;
      return this;
    }

    /** N floats by which the rounded products are multiplied. */
    public Builder rowScales(MemorySegment values) {
      rowScales = Optional.of(values);
      return this;
    }

    /** The size of the Hadamard matrix that undoes a rotation; 0: none. */
    public Builder rotation(int size) {
      rotation = size;
      return this;
    }

    /** The matrix; {@link MatrixCheck} says whether it holds together. */
    public Matrix build() {
      return new Matrix(
          n,
          k,
          encoding,
          codeOrder,
          codeRowStride,
          codes,
          granularity,
          scales,
          scaleOrder,
          nested,
          globalScale,
          zeros,
          zeroPoint,
          offsets,
          offsetsSubtracted,
          arithmetic,
          result,
          codebook,
          columnGroups,
          rowScales,
          rotation);
    }
  }
}
