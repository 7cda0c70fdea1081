package dev.gatun.checkpoint;

import static dev.gatun.checkpoint.WriterSupport.FLOAT;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.ScaleMethod;
import dev.gatun.kernel.Scaling;
import dev.gatun.kernel.codec.Magnitudes;
import dev.gatun.layout.BitsAndBytes4BitLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.math.BigInteger;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * Writes bitsandbytes' NF4 and FP4 with blocks of 64, as its CUDA kernels make them, under the
 * names and with the JSON text that transformers and diffusers save.
 */
final class BitsAndBytesWriter implements LayerWriter {
  /** What {@code gatun quantize --format} offers. */
  static final Map<String, String> FORMATS =
      new TreeMap<>(
          Map.of(
              "nf4", "bitsandbytes: 4-bit normal floats, one F32 scale per 64 weights",
              "nf4-nested", "bitsandbytes: 4-bit normal floats, scales quantized to 8 bits",
              "fp4", "bitsandbytes: its own 4-bit floats, one F32 scale per 64 weights",
              "fp4-nested", "bitsandbytes: its own 4-bit floats, scales quantized to 8 bits"));

  /** What follows a format's name when its bytes are labelled as numbers of another type. */
  private static final Map<String, DType> STORAGE =
      Map.of(
          ":int8", DType.I8,
          ":float16", DType.F16,
          ":bfloat16", DType.BF16,
          ":float32", DType.F32,
          ":float64", DType.F64);

  private static final ValueLayout.OfInt INT =
      ValueLayout.JAVA_INT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final ValueLayout.OfShort SHORT =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);
  private static final int NESTED_BLOCK = 256;

  private final Encoding encoding;
  private final boolean nested;
  private final long block;
  private final DType storage;

  BitsAndBytesWriter(String format) {
    this(format, 64);
  }

  /** With another block size than the library's default. */
  BitsAndBytesWriter(String format, long block) {
    this(
        format.startsWith("nf4") ? Encoding.NF4 : Encoding.FP4,
        plain(format).endsWith("-nested"),
        block,
        STORAGE.getOrDefault(format.substring(plain(format).length()), DType.U8));
  }

  private BitsAndBytesWriter(Encoding encoding, boolean nested, long block, DType storage) {
    this.encoding = encoding;
    this.nested = nested;
    this.block = block;
    this.storage = storage;
  }

  private static String plain(String format) {
    int colon = format.indexOf(':');
    return colon < 0 ? format : format.substring(0, colon);
  }

  /** Whether a name is a format's, with or without the type that its bytes are labelled as. */
  static boolean writes(String format) {
    String storage = format.substring(plain(format).length());
    return FORMATS.containsKey(plain(format))
        && (storage.isEmpty() || STORAGE.containsKey(storage));
  }

  @Override
  public boolean accepts(Tensor weight) {
    return WriterSupport.isFloatMatrix(weight)
        && Math.ceilDiv(weight.elements(), 2L) * Byte.SIZE % storage.bits() == 0;
  }

  @Override
  public Optional<String> refuses(Scaling scaling) {
    boolean fits = scaling.scale().kind() != ScaleMethod.Kind.ABSMAX;
    return nested && fits
        ? Optional.of("its scales are quantized themselves")
        : LayerWriter.super.refuses(scaling);
  }

  @Override
  public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
    Encoding type = Parts.encoding(weight);
    Draft draft =
        draft(layer, weight.shape().get(0), weight.shape().get(1), weight.elements(), arena);
    Matrix matrix = draft.matrix(type);
    // zeros get code 0 as from the CUDA kernel: 0 · (1/0) is NaN there, and every comparison with
    // it is false
    QuantizeRule rule =
        new QuantizeRule(
            Encoding.F32, true, 1f, 0, Float.NEGATIVE_INFINITY, Float.POSITIVE_INFINITY, false, 0);
    backend.quantize(matrix, rule, withoutSubnormals(weight, arena), type);
    fillPadding(draft.codes, draft.absmax, weight.elements());
    return (nested ? draft.nested(type, nest(draft.name, draft.absmax, arena)) : draft.flat(type))
        .finished();
  }

  /**
   * With the blocks that the weight has, if it has any. Scales that are quantized too are kept as
   * they are, of a weight that has such ones.
   */
  @Override
  public Optional<Blank> blank(String layer, QuantizedTensor weight, Arena arena) {
    Matrix m = weight.matrix();
    long own = m.granularity() instanceof Granularity.Flat blocks ? blocks.block() : block;
    if (own != block) {
      return new BitsAndBytesWriter(encoding, nested, own, storage).blank(layer, weight, arena);
    }
    Draft draft = draft(layer, m.n(), m.k(), Math.multiplyExact(m.n(), m.k()), arena);
    if (!nested) {
      return Optional.of(draft.flat(weight.dtype()));
    }
    return m.nested()
        .filter(nest -> nest.block() == NESTED_BLOCK)
        .map(
            nest ->
                draft.nested(
                    weight.dtype(),
                    Nested.of(draft.name, draft.absmax.elements(), nest.offset(), arena)));
  }

  /** Pieces are whole blocks; the scales' own scales are chosen when all of them are known. */
  @Override
  public Optional<RowQuantizer> byRows(String layer, Tensor weight) {
    if (nested) {
      return Optional.empty();
    }
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    Encoding type = Parts.encoding(weight);
    String name = layer + Parts.WEIGHT;
    long step = block / BigInteger.valueOf(block).gcd(BigInteger.valueOf(k)).longValue();
    return Optional.of(
        new SlicedRows(
            n,
            step,
            rows -> {
              List<SafetensorsWriter.Entry> entries = new ArrayList<>(entries(name, rows * k));
              entries.add(WriterSupport.entry(name + ".quant_map", DType.F32, 16L));
              entries.add(WriterSupport.textEntry(stateName(name), state(type, n, k, "")));
              return entries;
            },
            (rows, backend, arena) -> quantize(layer, rows, backend, arena),
            arena -> List.of(codebook(name, arena), state(name, type, n, k, "", arena))));
  }

  /** Codes and scales. */
  private List<SafetensorsWriter.Entry> entries(String name, long elements) {
    return List.of(
        WriterSupport.entry(
            name, storage, Math.ceilDiv(elements, 2L) * Byte.SIZE / storage.bits(), 1L),
        WriterSupport.entry(name + ".absmax", DType.F32, Math.ceilDiv(elements, block)));
  }

  private Draft draft(String layer, long n, long k, long elements, Arena arena) {
    String name = layer + Parts.WEIGHT;
    List<SafetensorsWriter.Entry> entries = entries(name, elements);
    Tensor codes = WriterSupport.allocate(arena, entries.get(0));
    Tensor absmax = WriterSupport.allocate(arena, entries.get(1));
    return new Draft(name, n, k, codes, absmax, arena);
  }

  private Tensor codebook(String name, Arena arena) {
    Tensor map = WriterSupport.allocate(arena, name + ".quant_map", DType.F32, 16L);
    List<Float> values = new BitsAndBytes4BitLayout(encoding, block, false).codebook();
    for (int i = 0; i < values.size(); i++) {
      map.data().set(FLOAT, 4L * i, values.get(i));
    }
    return map;
  }

  private String stateName(String name) {
    return name + BitsAndBytes.STATE + (encoding == Encoding.NF4 ? "nf4" : "fp4");
  }

  private Tensor state(String name, Encoding type, long n, long k, String more, Arena arena) {
    return WriterSupport.text(arena, stateName(name), state(type, n, k, more));
  }

  /** The scales' own codes, scales and codebook. */
  private record Nested(Tensor codes, Tensor scales, Tensor codebook, float offset) {
    static Nested of(String name, long count, float offset, Arena arena) {
      Tensor scales =
          WriterSupport.allocate(
              arena, name + ".nested_absmax", DType.F32, Math.ceilDiv(count, (long) NESTED_BLOCK));
      Tensor codebook = WriterSupport.allocate(arena, name + ".nested_quant_map", DType.F32, 256L);
      for (int i = 0; i < 256; i++) {
        codebook.data().set(FLOAT, 4L * i, DynamicMap.VALUES[i]);
      }
      Tensor codes = WriterSupport.allocate(arena, name + ".absmax", DType.U8, count);
      return new Nested(codes, scales, codebook, offset);
    }
  }

  /** A weight while it is put together. */
  private final class Draft {
    final String name;
    final long n;
    final long k;
    final Tensor codes;
    final Tensor absmax;
    final Arena arena;

    Draft(String name, long n, long k, Tensor codes, Tensor absmax, Arena arena) {
      this.name = name;
      this.n = n;
      this.k = k;
      this.codes = codes;
      this.absmax = absmax;
      this.arena = arena;
    }

    /** With scales in floats. */
    Matrix matrix(Encoding type) {
      return new BitsAndBytes4BitLayout(encoding, block, false)
          .matrix(n, k, codes.data(), absmax.data(), Optional.empty(), type);
    }

    Blank flat(Encoding type) {
      Tensor state = state(name, type, n, k, "", arena);
      return Blank.of(List.of(codes, codebook(name, arena), absmax, state), matrix(type));
    }

    Blank nested(Encoding type, Nested nest) {
      Matrix.Nested decoding =
          new Matrix.Nested(nest.codebook.data(), nest.scales.data(), NESTED_BLOCK, nest.offset);
      Matrix matrix =
          new BitsAndBytes4BitLayout(encoding, block, true)
              .matrix(n, k, codes.data(), nest.codes.data(), Optional.of(decoding), type);
      String more =
          ", \"nested_blocksize\": "
              + NESTED_BLOCK
              + ", \"nested_dtype\": \"float32\", \"nested_offset\": "
              + PythonJson.number(nest.offset);
      return Blank.of(
          List.of(
              codes,
              codebook(name, arena),
              nest.scales,
              nest.codebook,
              nest.codes,
              state(name, type, n, k, more, arena)),
          matrix);
    }
  }

  /**
   * The weight as the library's CUDA kernels see it: they are built to flush numbers below 2^-126
   * to zero, so that a block of such numbers is a block of zeros. Copied only when it holds such a
   * number.
   */
  private static MemorySegment withoutSubnormals(Tensor weight, Arena arena) {
    MemorySegment data = weight.data();
    if (weight.dtype() == DType.F16) {
      return data; // its smallest number is far above
    }
    long count = weight.elements();
    if (!Magnitudes.hasSubnormal(Parts.encoding(weight), data, count)) {
      return data;
    }
    boolean wide = weight.dtype() == DType.F32;
    MemorySegment copy = arena.allocate(data.byteSize(), 64).copyFrom(data);
    for (long i = 0; i < count; i++) {
      int bits = wide ? data.get(INT, 4 * i) : data.get(SHORT, 2 * i) << 16;
      if ((bits & 0x7F800000) == 0 && (bits & 0x7FFFFF) != 0) {
        if (wide) {
          copy.set(INT, 4 * i, bits & 0x80000000);
        } else {
          copy.set(SHORT, 2 * i, (short) ((bits & 0x80000000) >>> 16));
        }
      }
    }
    return copy;
  }

  /** Of an odd number of codes, the last low nibble holds the code of a padded zero. */
  private void fillPadding(Tensor codes, Tensor absmax, long elements) {
    if (elements % 2 != 0) {
      long last = codes.data().byteSize() - 1;
      boolean zeros = absmax.data().get(FLOAT, absmax.data().byteSize() - Float.BYTES) == 0;
      int zero = encoding == Encoding.NF4 && !zeros ? 7 : 0;
      int high = codes.data().get(ValueLayout.JAVA_BYTE, last) & 0xF0;
      codes.data().set(ValueLayout.JAVA_BYTE, last, (byte) (high | zero));
    }
  }

  private String state(Encoding type, long n, long k, String more) {
    String dtype =
        switch (type) {
          case F16 -> "float16";
          case BF16 -> "bfloat16";
          default -> "float32";
        };
    return "{\"quant_type\": \""
        + (encoding == Encoding.NF4 ? "nf4" : "fp4")
        + "\", \"blocksize\": "
        + block
        + ", \"dtype\": \""
        + dtype
        + "\", \"shape\": "
        + List.of(n, k)
        + more
        + "}";
  }

  /**
   * Quantizes the scales: their mean is taken off, the rest goes to 8-bit codes with one scale per
   * 256.
   */
  private static Nested nest(String name, Tensor absmax, Arena arena) {
    long count = absmax.elements();
    double sum = 0;
    for (long i = 0; i < count; i++) {
      sum += absmax.data().get(FLOAT, 4 * i);
    }
    // torch.mean: the sum in float times the rounded reciprocal of the count
    float offset = (float) sum * (1f / count);
    Nested nest = Nested.of(name, count, offset, arena);
    for (long start = 0; start < count; start += NESTED_BLOCK) {
      long end = Math.min(count, start + NESTED_BLOCK);
      float largest = 0;
      for (long i = start; i < end; i++) {
        largest = Math.max(largest, Math.abs(absmax.data().get(FLOAT, 4 * i) - offset));
      }
      nest.scales.data().set(FLOAT, start / NESTED_BLOCK * 4, largest);
      float reciprocal = 1f / largest;
      for (long i = start; i < end; i++) {
        float x = (absmax.data().get(FLOAT, 4 * i) - offset) * reciprocal;
        nest.codes.data().set(ValueLayout.JAVA_BYTE, i, (byte) DynamicMap.code(x));
      }
    }
    return nest;
  }

  @Override
  public Map<String, String> metadata(List<Written> layers, List<String> copied) {
    return Map.of("format", "pt"); // transformers refuses a file without it
  }
}
