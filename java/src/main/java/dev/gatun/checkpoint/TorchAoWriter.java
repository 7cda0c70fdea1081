package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.ScaleFitter;
import dev.gatun.kernel.ScaleMethod;
import dev.gatun.kernel.Scaling;
import dev.gatun.kernel.codec.Fp8;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Magnitudes;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.TorchAoLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeSet;

/**
 * Writes torchao's tensor subclasses as its safetensors support flattens them, with the codes and
 * scales that its present configurations compute. Source: torchao/quantization/quantize_/workflows.
 */
final class TorchAoWriter implements LayerWriter {
  /** The smallest scale of integers: float32's epsilon. */
  private static final float EPSILON = 0x1p-23f;

  /** torchao leaves weights with fewer columns as they are when activations are int8 too. */
  private static final long INT8_COLUMNS = 16;

  /** Sizes that {@code scaled_mm} takes: multiples of this. */
  private static final long FLOAT8_SIZES = 16;

  private final TorchAoWeights scheme;

  TorchAoWriter(String format) {
    this.scheme = TorchAoWeights.of(format);
  }

  @Override
  public boolean accepts(Tensor weight) {
    if (!WriterSupport.isFloatMatrix(weight)) {
      return false;
    }
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    return switch (scheme.type()) {
      case INT4_TILES, INT4 -> k % scheme.group() == 0;
      case INT8 ->
          scheme.dynamic() ? k > INT8_COLUMNS : scheme.group() == 0 || k % scheme.group() == 0;
      case INTX -> scheme.group() == 0 || k % scheme.group() == 0;
      case FLOAT8 -> !scheme.dynamic() || (n % FLOAT8_SIZES == 0 && k % FLOAT8_SIZES == 0);
    };
  }

  @Override
  public Optional<String> refuses(Scaling scaling) {
    if (scheme.type() == TorchAoWeights.Type.INTX) {
      return scaling.isDefault()
          ? Optional.empty()
          : Optional.of("its codes have fewer bits than the bytes that hold them");
    }
    return scheme.type() == TorchAoWeights.Type.INT4_TILES
        ? Optional.empty()
        : LayerWriter.super.refuses(scaling);
  }

  @Override
  public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
    return quantize(layer, weight, Scaling.DEFAULT, backend, arena);
  }

  @Override
  public Quantized quantize(
      String layer, Tensor weight, Scaling scaling, Backend backend, Arena arena) {
    boolean hqq = scaling.scale().kind() == ScaleMethod.Kind.HQQ;
    Quantized quantized =
        switch (scheme.type()) {
          case INT4_TILES -> new TorchAoInt4(layer, weight, scheme.group(), arena).tiles(hqq);
          case INT4 -> new TorchAoInt4(layer, weight, scheme.group(), arena).plain();
          case INT8, INTX, FLOAT8 -> bytes(layer, weight, backend, arena);
        };
    ScaleFitter.fit(
        quantized.matrix(), weight.data(), Parts.encoding(weight), scaling.forLayer(layer));
    return quantized;
  }

  /**
   * Codes of a byte. The scales are F32 whatever the weight's type is, and so is the quotient; but
   * of integers of few bits both are of the weight's type.
   */
  private Quantized bytes(String layer, Tensor weight, Backend backend, Arena arena) {
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    Encoding encoding = scheme.encoding();
    boolean integer = encoding == Encoding.I8;
    Blank made = bytes(layer, n, k, Parts.encoding(weight), arena);
    MemorySegment scales = made.matrix().scales().orElseThrow().data();
    Encoding scaleType = made.matrix().scales().orElseThrow().type();
    List<Long> block = scheme.block(n, k);
    long across = k / block.get(1);
    for (long row = 0; row < n / block.get(0); row++) {
      for (long column = 0; column < across; column++) {
        float scale = scale(weight, row * block.get(0), column * block.get(1), block);
        Numbers.put(scaleType, scales, row * across + column, scale);
      }
    }
    float largest = integer ? 0 : Fp8.max(encoding);
    QuantizeRule rule =
        integer
            ? new QuantizeRule(
                scaleType, true, 1, 0, scheme.smallest(), -scheme.smallest() - 1, true, -1)
            : new QuantizeRule(Encoding.F32, false, 1, 0, -largest, largest, true, 0);
    backend.quantize(made.matrix(), rule, weight.data(), Parts.encoding(weight));
    return made.finished();
  }

  private Blank bytes(String layer, long n, long k, Encoding dtype, Arena arena) {
    Encoding encoding = scheme.encoding();
    List<Long> block = scheme.block(n, k);
    List<Tensor> tensors =
        bytes(layer, n, k, DType.valueOf(dtype.name())).stream()
            .map(e -> WriterSupport.allocate(arena, e))
            .toList();
    Tensor codes = tensors.get(tensors.size() - 2);
    Tensor scales = tensors.getLast();
    Matrix matrix =
        new TorchAoLayout(scheme.type().className(), encoding)
            .blocks(
                n,
                k,
                codes.data(),
                block.get(0),
                block.get(1),
                Parts.values(scales),
                Optional.empty(),
                dtype);
    return Blank.of(tensors, matrix);
  }

  /** Zero points of integers, codes and scales. */
  private List<SafetensorsWriter.Entry> bytes(String layer, long n, long k, DType dtype) {
    Encoding encoding = scheme.encoding();
    List<Long> block = scheme.block(n, k);
    long down = n / block.get(0);
    long across = k / block.get(1);
    String prefix = TorchAoTensors.prefix(layer + Parts.WEIGHT);
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    if (encoding == Encoding.I8) {
      entries.add(WriterSupport.entry(prefix + "zero_point", DType.I8, down, across));
    }
    entries.add(WriterSupport.entry(prefix + "qdata", DType.valueOf(encoding.name()), n, k));
    DType scales = scheme.type() == TorchAoWeights.Type.INTX ? dtype : DType.F32;
    entries.add(WriterSupport.entry(prefix + "scale", scales, down, across));
    return entries;
  }

  /** Codes of a byte with scales of rows or of parts of them. */
  @Override
  public Optional<RowQuantizer> byRows(String layer, Tensor weight) {
    long k = weight.shape().get(1);
    boolean codes =
        scheme.type() != TorchAoWeights.Type.INT4_TILES
            && scheme.type() != TorchAoWeights.Type.INT4;
    return codes && scheme.block(2, k).get(0) == 1
        ? Optional.of(
            SlicedRows.of(
                weight,
                rows -> bytes(layer, rows, k, weight.dtype()),
                (rows, backend, arena) -> quantize(layer, rows, backend, arena)))
        : Optional.empty();
  }

  @Override
  public Optional<Blank> blank(String layer, QuantizedTensor weight, Arena arena) {
    long n = weight.matrix().n();
    long k = weight.matrix().k();
    if (scheme.type() == TorchAoWeights.Type.INTX) {
      return Optional.empty(); // codes of a byte might not be of so few bits
    }
    return Optional.of(
        switch (scheme.type()) {
          case INT4_TILES -> TorchAoInt4.tiles(layer, n, k, scheme.group(), arena);
          case INT4 -> TorchAoInt4.plain(layer, n, k, scheme.group(), arena);
          case INT8, INTX, FLOAT8 -> bytes(layer, n, k, weight.dtype(), arena);
        });
  }

  /**
   * absmax / largest code, as CUDA divides by a constant: times its rounded reciprocal. In the
   * weight's type, though it is stored as F32.
   */
  private float scale(Tensor weight, long row, long column, List<Long> block) {
    Encoding type = Parts.encoding(weight);
    long k = weight.shape().get(1);
    float absmax = 0;
    for (long i = 0; i < block.get(0); i++) {
      long first = (row + i) * k + column;
      absmax = Math.max(absmax, Magnitudes.largest(type, weight.data(), first, block.get(1)));
    }
    boolean integer = scheme.encoding() == Encoding.I8;
    float reciprocal = 1f / (integer ? scheme.halfRange() : Fp8.max(scheme.encoding()));
    float scale = HalfFloat.round(type, absmax * reciprocal);
    return integer ? Math.max(scale, EPSILON) : scale;
  }

  /** An entry for every name of the state dict; names without a dot cannot be flattened. */
  @Override
  public Map<String, String> metadata(List<Written> layers, List<String> copied) {
    Map<String, String> entries = new LinkedHashMap<>();
    Collection<String> names = new TreeSet<>(copied);
    names.removeIf(name -> name.indexOf('.') < 0);
    names.forEach(name -> entries.put(name, "{\"_type\": \"Tensor\"}"));
    for (Written layer : layers) {
      entries.put(
          layer.layer() + Parts.WEIGHT, TorchAoWeights.of(layer.format()).description(layer));
    }
    StringBuilder list = new StringBuilder();
    for (String name : new TreeSet<>(entries.keySet())) {
      list.append(list.isEmpty() ? "" : ", ").append(PythonJson.string(name));
    }
    entries.put(TorchAo.NAMES, "[" + list + "]");
    return entries;
  }
}
