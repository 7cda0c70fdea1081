package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.Operation;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.ReferenceBackend;
import dev.gatun.kernel.Scaling;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.GgufLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.LongStream;

/**
 * Writes GGUF files of one block type. Tensors keep their names and order; those whose rows are not
 * whole blocks and those of other than two dimensions stay as they are.
 */
final class GgufLayerWriter implements LayerWriter {
  static final String ARCHITECTURE = "general.architecture";
  static final String FILE_TYPE = "general.file_type";
  static final String QUANTIZATION_VERSION = "general.quantization_version";

  /** ggml's present version of its quantized types. */
  private static final int VERSION = 2;

  private final Encoding encoding;

  GgufLayerWriter(Encoding encoding) {
    this.encoding = encoding;
  }

  /** llama.cpp's number for a file that is mostly of this type (enum llama_ftype). */
  private int fileType() {
    return switch (encoding) {
      case Q4_0 -> 2;
      case Q4_1 -> 3;
      case Q8_0 -> 7;
      case Q5_0 -> 8;
      case Q5_1 -> 9;
      case Q4_K -> 14;
      case Q6_K -> 18;
      case IQ4_NL -> 25;
      case MXFP4 -> 38;
      case NVFP4 -> 39;
      default -> throw new IllegalStateException(encoding + " is not written");
    };
  }

  @Override
  public boolean accepts(Tensor weight) {
    return WriterSupport.isFloatMatrix(weight)
        && weight.shape().get(1) % encoding.blockElements() == 0;
  }

  @Override
  public Optional<String> refuses(Scaling scaling) {
    return scaling.isDefault()
        ? Optional.empty()
        : Optional.of("its blocks are quantized by ggml's own rule");
  }

  @Override
  public Optional<RowQuantizer> byRows(String layer, Tensor weight) {
    long k = weight.shape().get(1);
    DType type = DType.valueOf(encoding.name());
    return Optional.of(
        SlicedRows.of(
            weight,
            rows -> List.of(WriterSupport.entry(layer + Parts.WEIGHT, type, rows, k)),
            (rows, backend, arena) -> quantize(layer, rows, backend, arena)));
  }

  private Tensor allocate(Arena arena, String layer, long n, long k) {
    return WriterSupport.allocate(
        arena, layer + Parts.WEIGHT, DType.valueOf(encoding.name()), n, k);
  }

  @Override
  public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    Tensor codes = allocate(arena, layer, n, k);
    Matrix matrix = new GgufLayout(encoding).matrix(n, k, codes.data(), 1f);
    Encoding type = Parts.encoding(weight);
    if (backend.refuses(Operation.QUANTIZE, matrix, Optional.empty()).isEmpty()) {
      backend.quantize(matrix, QuantizeRule.OF_THE_BLOCK, weight.data(), type);
    } else {
      byRows(matrix, weight.data(), type);
    }
    return new Quantized(List.of(codes), matrix);
  }

  /** The definition, on as many threads as there are: it takes rows one by one. */
  private void byRows(Matrix matrix, MemorySegment w, Encoding type) {
    long k = matrix.k();
    long wRow = k * type.bits() / 8;
    long codesRow = k / encoding.blockElements() * encoding.blockBytes();
    ReferenceBackend reference = new ReferenceBackend();
    LongStream.range(0, matrix.n())
        .parallel()
        .forEach(
            row -> {
              MemorySegment codes = matrix.codes().asSlice(row * codesRow, codesRow);
              reference.quantize(
                  new GgufLayout(encoding).matrix(1, k, codes, 1f),
                  QuantizeRule.OF_THE_BLOCK,
                  w.asSlice(row * wRow, wRow),
                  type);
            });
  }

  /** NVFP4 weights may have a scale of the whole tensor, in a tensor of its own. */
  @Override
  public Optional<Blank> blank(String layer, QuantizedTensor weight, Arena arena) {
    Matrix m = weight.matrix();
    float scale = encoding == Encoding.NVFP4 ? m.globalScale() : 1f;
    if (m.k() % encoding.blockElements() != 0) {
      return Optional.empty();
    }
    // Blocks keep their names, which need not end in ".weight".
    String name =
        weight
            .part("codes")
            .filter(old -> old.dtype().isBlock())
            .map(Tensor::name)
            .orElse(layer + Parts.WEIGHT);
    Tensor codes =
        WriterSupport.allocate(arena, name, DType.valueOf(encoding.name()), m.n(), m.k());
    List<Tensor> tensors = new ArrayList<>(List.of(codes));
    if (scale != 1) {
      Tensor factor = WriterSupport.allocate(arena, layer + Gguf.SCALE, DType.F32, 1L);
      Numbers.put(Encoding.F32, factor.data(), 0, scale);
      tensors.add(factor);
    }
    return Optional.of(
        Blank.of(tensors, new GgufLayout(encoding).matrix(m.n(), m.k(), codes.data(), scale)));
  }

  @Override
  public TensorFileWriter create(
      OutputFile file,
      Collection<SafetensorsWriter.Entry> entries,
      Checkpoint source,
      Map<String, String> metadata) {
    Map<String, Integer> order = new HashMap<>();
    source.tensors().keySet().forEach(name -> order.put(name, order.size()));
    List<SafetensorsWriter.Entry> sorted = new ArrayList<>(entries);
    sorted.sort(
        Comparator.comparingInt(entry -> order.getOrDefault(entry.name(), Integer.MAX_VALUE)));
    return GgufWriter.create(file, sorted, values(source, metadata));
  }

  /** A GGUF source's own metadata; of another source, the architecture if it says one. */
  private Map<String, GgufValue> values(Checkpoint source, Map<String, String> metadata) {
    Map<String, GgufValue> values = new LinkedHashMap<>();
    for (TensorFile file : source.containers()) {
      if (file instanceof GgufFile gguf) {
        gguf.values().forEach(values::putIfAbsent);
      }
    }
    values.keySet().removeIf(GgufSplit::isKey); // the parts of a split file become one
    if (values.isEmpty() && metadata.containsKey(ARCHITECTURE)) {
      values.put(ARCHITECTURE, GgufValue.string(metadata.get(ARCHITECTURE)));
    }
    if (metadata.containsKey(Checkpoint.COMPUTE_PLAN)) {
      values.put(Checkpoint.COMPUTE_PLAN, GgufValue.string(metadata.get(Checkpoint.COMPUTE_PLAN)));
    }
    values.put(QUANTIZATION_VERSION, GgufValue.u32(VERSION));
    values.put(FILE_TYPE, GgufValue.u32(fileType()));
    return values;
  }
}
