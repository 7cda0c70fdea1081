package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.QuantizeRule;
import dev.gatun.layout.QuantoBytesLayout;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
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
    DType codeType =
        switch (qtype) {
          case "qint8" -> DType.I8;
          case "qfloat8_e4m3fn" -> DType.F8_E4M3;
          case "qfloat8_e4m3fnuz" -> DType.F8_E4M3FNUZ;
          default -> DType.F8_E5M2;
        };
    float largest =
        switch (codeType) {
          case I8 -> 127f;
          case F8_E4M3 -> 448f;
          case F8_E4M3FNUZ -> 240f;
          default -> 57344f;
        };
    float smallest = codeType == DType.I8 ? -128f : -largest;
    Tensor codes = WriterSupport.allocate(arena, layer + Quanto.DATA, codeType, n, k);
    // quanto quantizes a single row per tensor: its scale is a scalar
    Tensor scale =
        n == 1
            ? WriterSupport.allocate(arena, layer + Quanto.SCALE, weight.dtype())
            : WriterSupport.allocate(arena, layer + Quanto.SCALE, weight.dtype(), n, 1L);
    Encoding type = Parts.encoding(weight);
    Matrix matrix =
        new QuantoBytesLayout(Parts.encoding(codes), n != 1)
            .matrix(n, k, codes.data(), Parts.values(scale));
    QuantizeRule rule = new QuantizeRule(type, false, largest, 0, smallest, largest, false, 0);
    backend.quantize(matrix, rule, weight.data(), type);
    return new Quantized(List.of(codes, scale), matrix);
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
