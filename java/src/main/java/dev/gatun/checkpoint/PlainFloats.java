package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.Scaling;
import dev.gatun.layout.PlainLayout;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/**
 * Weights that are floats under their plain names: what is written where a layer is not quantized.
 * As a reader it claims nothing.
 */
public final class PlainFloats implements CheckpointFormat {
  /** The weight as it is. */
  public static final String ORIGINAL = "original";

  private static final Map<String, Optional<DType>> TYPES =
      new TreeMap<>(
          Map.of(
              ORIGINAL,
              Optional.empty(),
              "float32",
              Optional.of(DType.F32),
              "float16",
              Optional.of(DType.F16),
              "bfloat16",
              Optional.of(DType.BF16)));

  /** For {@link java.util.ServiceLoader}. */
  public PlainFloats() {}

  @Override
  public String name() {
    return "plain";
  }

  @Override
  public Found read(CheckpointSource source) {
    return Found.NOTHING;
  }

  @Override
  public Map<String, String> writes() {
    Map<String, String> formats = new TreeMap<>();
    TYPES.forEach(
        (name, type) ->
            formats.put(
                name,
                type.map(t -> "plain floats of type " + t).orElse("the weight's own floats")));
    return formats;
  }

  @Override
  public LayerWriter writer(String format) {
    Optional<DType> type = TYPES.get(format);
    if (type == null) {
      throw new GatunException(
          "no format '" + format + "' in plain, expected one of " + TYPES.keySet());
    }
    return new Writer(type);
  }

  private record Writer(Optional<DType> type) implements LayerWriter {
    @Override
    public boolean accepts(Tensor weight) {
      return WriterSupport.isFloatMatrix(weight);
    }

    @Override
    public Optional<String> refuses(Scaling scaling) {
      return scaling.isDefault() ? Optional.empty() : Optional.of("plain floats have no scales");
    }

    @Override
    public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
      DType to = type.orElse(weight.dtype());
      Tensor out = weight;
      if (to != weight.dtype()) {
        Long[] shape = weight.shape().toArray(new Long[0]);
        out = WriterSupport.allocate(arena, layer + Parts.WEIGHT, to, shape);
        backend.convert(
            weight.data(),
            Parts.encoding(weight),
            out.data(),
            Parts.encoding(out),
            weight.elements(),
            false);
      }
      Matrix matrix =
          new PlainLayout(Parts.encoding(out))
              .matrix(weight.shape().get(0), weight.shape().get(1), out.data());
      return new Quantized(List.of(out), matrix);
    }

    @Override
    public Optional<RowQuantizer> byRows(String layer, Tensor weight) {
      DType to = type.orElse(weight.dtype());
      long k = weight.shape().get(1);
      return Optional.of(
          SlicedRows.of(
              weight,
              rows -> List.of(WriterSupport.entry(layer + Parts.WEIGHT, to, rows, k)),
              (rows, backend, arena) -> quantize(layer, rows, backend, arena)));
    }
  }
}
