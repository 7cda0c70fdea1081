package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.QuantoBytesLayout;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Collectors;

/**
 * Writes quanto's weights: of 8 bits with one scale per row, absmax / largest code, everything in
 * the weight's own type; of 2 and 4 bits in groups. A row of zeros gets the scale 0 and codes 0;
 * quanto's own 8-bit floats would hold NaN there.
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
    return WriterSupport.isFloatMatrix(weight);
  }

  @Override
  public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
    Quantized quantized =
        qtype.equals("qint2") || qtype.equals("qint4")
            ? QuantoBits.quantize(layer, weight, qtype.equals("qint2") ? 2 : 4, arena)
            : bytes(layer, weight, backend, arena);
    List<Tensor> tensors = new ArrayList<>(quantized.tensors());
    tensors.add(WriterSupport.one(arena, layer + ".input_scale", weight.dtype()));
    tensors.add(WriterSupport.one(arena, layer + ".output_scale", weight.dtype()));
    return new Quantized(tensors, quantized.matrix());
  }

  private Quantized bytes(String layer, Tensor weight, Backend backend, Arena arena) {
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    DType codeType = codeType();
    float largest =
        switch (codeType) {
          case I8 -> 127f;
          case F8_E4M3 -> 448f;
          case F8_E4M3FNUZ -> 240f;
          default -> 57344f;
        };
    float smallest = codeType == DType.I8 ? -128f : -largest;
    Tensor codes = WriterSupport.allocate(arena, layer + Quanto.DATA, codeType, n, k);
    Tensor scale = scales(layer, n, weight.dtype(), arena);
    Encoding type = Parts.encoding(weight);
    Matrix matrix =
        new QuantoBytesLayout(Parts.encoding(codes), n != 1)
            .matrix(n, k, codes.data(), Parts.values(scale));
    QuantizeRule rule = new QuantizeRule(type, false, largest, 0, smallest, largest, false, 0);
    backend.quantize(matrix, rule, weight.data(), type);
    return new Quantized(List.of(codes, scale), matrix);
  }

  private DType codeType() {
    return switch (qtype) {
      case "qint8" -> DType.I8;
      case "qfloat8_e4m3fn" -> DType.F8_E4M3;
      case "qfloat8_e4m3fnuz" -> DType.F8_E4M3FNUZ;
      default -> DType.F8_E5M2;
    };
  }

  /** quanto quantizes a single row per tensor: its scale is a scalar. */
  private static Tensor scales(String layer, long n, DType dtype, Arena arena) {
    return n == 1
        ? WriterSupport.allocate(arena, layer + Quanto.SCALE, dtype)
        : WriterSupport.allocate(arena, layer + Quanto.SCALE, dtype, n, 1L);
  }

  /** Bytes with one scale per row or tensor keep their codes. */
  @Override
  public Optional<Quantized> relay(String layer, QuantizedTensor weight, Arena arena) {
    if (qtype.equals("qint2") || qtype.equals("qint4")) {
      return Optional.empty();
    }
    return ByteRelay.of(weight, codeType().encoding().orElseThrow())
        .map(bytes -> relaid(layer, bytes, DType.valueOf(weight.dtype().name()), arena))
        .filter(quantized -> ByteRelay.isSame(weight.matrix(), quantized.matrix()));
  }

  private Quantized relaid(String layer, ByteRelay bytes, DType dtype, Arena arena) {
    long n = bytes.matrix.n();
    Tensor codes = bytes.codes(layer + Quanto.DATA, codeType(), arena);
    Tensor scale = scales(layer, n, dtype, arena);
    for (int i = 0; i < n; i++) {
      Numbers.put(Parts.encoding(scale), scale.data(), i, bytes.scales[i]);
    }
    Matrix matrix =
        new QuantoBytesLayout(Parts.encoding(codes), n != 1)
            .matrix(n, bytes.matrix.k(), codes.data(), Parts.values(scale));
    Tensor in = WriterSupport.one(arena, layer + ".input_scale", dtype);
    Tensor out = WriterSupport.one(arena, layer + ".output_scale", dtype);
    return new Quantized(List.of(codes, scale, in, out), matrix);
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
                        + "\",\n        \"activations\": \"none\"\n    }")
            .collect(Collectors.joining(",\n"));
    return Map.of(Quanto.MAP, "{\n" + entries + "\n}");
  }
}
