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
import dev.gatun.layout.QuantoBitsLayout;
import dev.gatun.layout.QuantoBytesLayout;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Collectors;

/**
 * Writes quanto's weights: of 8 bits with one scale per row, absmax / largest code, everything in
 * the weight's own type; of 2 and 4 bits in groups. A row of zeros gets the scale 0 and codes 0;
 * quanto's own 8-bit floats would hold NaN there.
 *
 * <p>Convolutions' weights are quantized as [N, product of the rest], and what is not cut into
 * groups keeps their four dimensions.
 */
final class QuantoWriter implements LayerWriter {
  /** What {@code gatun quantize --format} offers. */
  static final Map<String, String> FORMATS =
      new TreeMap<>(
          Map.of(
              "qint2", "quanto: 2-bit integers, one scale and one shift per group",
              "qint4", "quanto: 4-bit integers, one scale and one shift per group",
              "qint8", "quanto: 8-bit integers, one scale per row",
              "qfloat8_e4m3fn", "quanto: 8-bit floats e4m3fn, one scale per row",
              "qfloat8_e4m3fnuz", "quanto: 8-bit floats e4m3fnuz, one scale per row",
              "qfloat8_e5m2", "quanto: 8-bit floats e5m2, one scale per row"));

  private final String qtype;

  QuantoWriter(String qtype) {
    this.qtype = qtype;
  }

  @Override
  public boolean accepts(Tensor weight) {
    return WriterSupport.isFloatMatrix(matrix(weight));
  }

  @Override
  public boolean isQuantized(Tensor tensor) {
    return tensor.name().endsWith(Parts.WEIGHT) && accepts(tensor);
  }

  /** A convolution's weight seen as a matrix. */
  private static Tensor matrix(Tensor weight) {
    boolean convolution = weight.shape().size() == 4 && weight.elements() > 0;
    long n = convolution ? weight.shape().get(0) : 0;
    return convolution
        ? new Tensor(
            weight.name(), weight.dtype(), List.of(n, weight.elements() / n), weight.data())
        : weight;
  }

  /** In as many dimensions as quanto gives what stands for a weight of a shape. */
  private List<Long> shaped(List<Long> weight, String name, List<Long> part) {
    long columns = weight.stream().skip(1).reduce(1L, Math::multiplyExact);
    boolean flat = weight.size() == 2 || (isBits() && QuantoBitsLayout.groupOf(columns) != 0);
    if (flat || part.size() != 2) {
      return part;
    }
    boolean perRow = name.endsWith(Quanto.SCALE) || name.endsWith(Quanto.SHIFT);
    List<Long> own = new ArrayList<>(perRow ? Collections.nCopies(weight.size(), 1L) : weight);
    own.set(0, part.getFirst()); // packed codes have fewer rows
    return own;
  }

  private Blank shaped(List<Long> weight, Blank blank) {
    List<Tensor> tensors =
        blank.tensors().stream()
            .map(
                t -> new Tensor(t.name(), t.dtype(), shaped(weight, t.name(), t.shape()), t.data()))
            .toList();
    return new Blank(tensors, blank.matrix(), blank.finish());
  }

  private boolean isBits() {
    return qtype.equals("qint2") || qtype.equals("qint4");
  }

  private int bits() {
    return qtype.equals("qint2") ? 2 : 4;
  }

  @Override
  public Optional<String> refuses(Scaling scaling) {
    return isBits() ? Optional.empty() : LayerWriter.super.refuses(scaling);
  }

  @Override
  public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
    return quantize(layer, weight, Scaling.DEFAULT, backend, arena);
  }

  @Override
  public Quantized quantize(
      String layer, Tensor given, Scaling scaling, Backend backend, Arena arena) {
    Tensor weight = matrix(given);
    boolean hqq = scaling.scale().kind() == ScaleMethod.Kind.HQQ;
    Blank made = blank(layer, weight.shape().get(0), weight.shape().get(1), weight.dtype(), arena);
    if (isBits()) {
      QuantoBits.quantize(made.matrix(), weight, bits(), hqq);
    } else {
      float largest =
          switch (codeType()) {
            case I8 -> 127f;
            case F8_E4M3 -> 448f;
            case F8_E4M3FNUZ -> 240f;
            default -> 57344f;
          };
      float smallest = codeType() == DType.I8 ? -128f : -largest;
      Encoding type = Parts.encoding(weight);
      QuantizeRule rule = new QuantizeRule(type, false, largest, 0, smallest, largest, false, 0);
      backend.quantize(made.matrix(), rule, weight.data(), type);
    }
    ScaleFitter.fit(made.matrix(), weight.data(), Parts.encoding(weight), scaling.forLayer(layer));
    return shaped(given.shape(), made).finished();
  }

  @Override
  public Optional<Blank> blank(String layer, QuantizedTensor weight, Arena arena) {
    Matrix m = weight.matrix();
    Blank made = blank(layer, m.n(), m.k(), DType.valueOf(weight.dtype().name()), arena);
    return Optional.of(shaped(weight.shape(), made));
  }

  private Blank blank(String layer, long n, long k, DType dtype, Arena arena) {
    Blank codes =
        isBits()
            ? QuantoBits.blank(layer, n, k, bits(), dtype, arena)
            : bytes(layer, n, k, dtype, arena);
    List<Tensor> tensors = new ArrayList<>(codes.tensors());
    tensors.addAll(activations(layer, dtype, arena));
    return Blank.of(tensors, codes.matrix());
  }

  /** The scales of activations that are not quantized. */
  private static List<Tensor> activations(String layer, DType dtype, Arena arena) {
    return List.of(
        WriterSupport.one(arena, layer + ".input_scale", dtype),
        WriterSupport.one(arena, layer + ".output_scale", dtype));
  }

  @Override
  public Optional<RowQuantizer> byRows(String layer, Tensor weight) {
    if (isBits()) {
      return Optional.empty(); // a byte holds codes of rows that are far apart
    }
    DType dtype = weight.dtype();
    long n = weight.shape().get(0);
    long k = weight.elements() / n;
    return Optional.of(
        new SlicedRows(
            n,
            1,
            rows -> {
              List<SafetensorsWriter.Entry> entries = new ArrayList<>();
              for (SafetensorsWriter.Entry entry : bytes(layer, rows, k, dtype)) {
                List<Long> shape = shaped(weight.shape(), entry.name(), entry.shape());
                entries.add(new SafetensorsWriter.Entry(entry.name(), entry.dtype(), shape));
              }
              entries.add(WriterSupport.entry(layer + ".input_scale", dtype));
              entries.add(WriterSupport.entry(layer + ".output_scale", dtype));
              return entries;
            },
            (rows, backend, arena) -> quantize(layer, rows, backend, arena),
            arena -> activations(layer, dtype, arena)));
  }

  @Override
  public Map<String, String> activations(String layer) {
    return Map.of(
        QuantizedTensor.INPUT_SCALE, layer + ".input_scale",
        QuantizedTensor.OUTPUT_SCALE, layer + ".output_scale");
  }

  /** Codes and scales; quanto quantizes a single row per tensor: its scale is a scalar. */
  private List<SafetensorsWriter.Entry> bytes(String layer, long n, long k, DType dtype) {
    return List.of(
        WriterSupport.entry(layer + Quanto.DATA, codeType(), n, k),
        n == 1
            ? WriterSupport.entry(layer + Quanto.SCALE, dtype)
            : WriterSupport.entry(layer + Quanto.SCALE, dtype, n, 1L));
  }

  private Blank bytes(String layer, long n, long k, DType dtype, Arena arena) {
    List<SafetensorsWriter.Entry> entries = bytes(layer, n, k, dtype);
    Tensor codes = WriterSupport.allocate(arena, entries.get(0));
    Tensor scale = WriterSupport.allocate(arena, entries.get(1));
    Matrix matrix =
        new QuantoBytesLayout(Parts.encoding(codes), n != 1)
            .matrix(n, k, codes.data(), Parts.values(scale));
    return Blank.of(List.of(codes, scale), matrix);
  }

  private DType codeType() {
    return switch (qtype) {
      case "qint8" -> DType.I8;
      case "qfloat8_e4m3fn" -> DType.F8_E4M3;
      case "qfloat8_e4m3fnuz" -> DType.F8_E4M3FNUZ;
      default -> DType.F8_E5M2;
    };
  }

  @Override
  public Map<String, String> sidecars(List<Written> layers) {
    String entries =
        layers.stream()
            .map(
                written ->
                    "    "
                        + PythonJson.string(written.layer())
                        + ": {\n        \"weights\": \""
                        + written.format()
                        + "\",\n        \"activations\": \""
                        + written.activations().map(Quanto::typeName).orElse("none")
                        + "\"\n    }")
            .collect(Collectors.joining(",\n"));
    return Map.of(Quanto.MAP, "{\n" + entries + "\n}");
  }
}
