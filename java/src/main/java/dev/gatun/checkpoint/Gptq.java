package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.GptqLayout;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * GPTQ as AutoGPTQ and GPTQModel save it: {@code X.qweight} [K·bits/32, N], {@code X.qzeros},
 * {@code X.scales} and, for {@code desc_act}, {@code X.g_idx}. Width and sizes follow from the
 * shapes and are checked against {@code quantize_config.json} or {@code config.json}. The first
 * version of the format stores zero points less one. Source: auto_gptq/nn_modules/qlinear.
 */
public final class Gptq implements ReadOnlyFormat {
  static final String CODES = ".qweight";

  /** For {@link java.util.ServiceLoader}. */
  public Gptq() {}

  @Override
  public String name() {
    return "gptq";
  }

  /** After AWQ, which has the same names and other shapes. */
  @Override
  public int order() {
    return 10;
  }

  @Override
  public Found read(CheckpointSource source) {
    List<Tensor> codes =
        source.tensors().values().stream().filter(t -> t.name().endsWith(CODES)).toList();
    return codes.isEmpty() ? Found.NOTHING : new Reader(new Parts(source)).read(codes);
  }

  /** The settings beside the file; a missing node when there are none. */
  static JsonNode config(CheckpointSource source) {
    JsonNode own = source.sidecar("quantize_config.json");
    return own.isObject() ? own : source.sidecar("config.json").path("quantization_config");
  }

  private record Reader(Parts parts) {
    Found read(List<Tensor> all) {
      JsonNode config = config(parts.source());
      String version = config.path("checkpoint_format").asText("gptq");
      List<QuantizedTensor> layers = new ArrayList<>();
      Map<String, String> unsupported = new LinkedHashMap<>();
      Map<String, String> side = new LinkedHashMap<>();
      for (Tensor codes : all) {
        String layer = codes.name().substring(0, codes.name().length() - CODES.length());
        if (version.equals("gptq") || version.equals("gptq_v2")) {
          layers.add(layer(layer, codes, config, version.equals("gptq") ? 1 : 0));
        } else {
          unsupported.put(layer, "GPTQ in the layout " + Problem.quote(version) + " is not read");
          for (String part : List.of(CODES, ".qzeros", ".scales", ".g_idx")) {
            parts.find(layer + part).ifPresent(t -> side.put(t.name(), "part of a GPTQ weight"));
          }
        }
      }
      return new Found(layers, side, unsupported);
    }

    private QuantizedTensor layer(String layer, Tensor codes, JsonNode config, int zeroShift) {
      parts.dtype(codes, DType.I32, DType.U32);
      parts.matrix(codes);
      Tensor scales = parts.require(layer + ".scales", "the scales of a GPTQ weight");
      Tensor zeros = parts.require(layer + ".qzeros", "the zero points of a GPTQ weight");
      parts.dtype(scales, DType.F16, DType.BF16, DType.F32);
      parts.dtype(zeros, DType.I32, DType.U32);
      parts.matrix(scales);
      parts.matrix(zeros);
      long n = codes.shape().get(1);
      if (scales.shape().get(1) != n) {
        throw parts.problem(scales, "shape " + scales.shape(), "[groups, " + n + "]");
      }
      long groups = scales.shape().get(0);
      int bits = bits(zeros, n, groups, config);
      long rows = codes.shape().get(0);
      if (bits == 3 && rows % 3 != 0) {
        throw parts.problem(codes, rows + " rows of words", "a multiple of 3 for 3 bits");
      }
      long k = Math.multiplyExact(rows, 32L) / bits;
      Optional<Tensor> index = parts.find(layer + ".g_idx");
      index.ifPresent(
          t -> {
            parts.dtype(t, DType.I32, DType.I64);
            parts.count(t, k);
          });
      long group = group(scales, k, groups, config);
      GptqLayout layout = new GptqLayout(bits, group);
      Map<String, Tensor> roles = new LinkedHashMap<>();
      roles.put("codes", codes);
      roles.put("scales", scales);
      roles.put("zeros", zeros);
      index.ifPresent(t -> roles.put("column_groups", t));
      return QuantizedTensor.lazy(
          layer,
          List.of(n, k),
          layout,
          roles,
          () -> {
            SmallParts small = new SmallParts(parts);
            int mask = (1 << bits) - 1;
            long rowBits = zeros.shape().get(1) * 32;
            MemorySegment points =
                small.bytes(
                    groups,
                    n,
                    (g, o) ->
                        SmallParts.bits(zeros, g * rowBits + o * bits, bits) + zeroShift & mask);
            Matrix.Values values = Parts.values(scales);
            return layout.matrix(
                n, k, codes.data(), values, points, small.columnGroups(index, group, groups));
          },
          Parts.encoding(scales));
    }

    /** The zero points are N codes in a row. */
    private int bits(Tensor zeros, long n, long groups, JsonNode config) {
      long rowBits = Math.multiplyExact(zeros.shape().get(1), 32L);
      long bits = rowBits / n;
      boolean known = bits == 2 || bits == 3 || bits == 4 || bits == 8;
      if (!known || rowBits % n != 0 || zeros.shape().get(0) != groups) {
        throw parts.problem(
            zeros,
            "shape " + zeros.shape(),
            "[" + groups + ", " + n + " x bits / 32] with 2, 3, 4 or 8 bits");
      }
      JsonNode declared = config.path("bits");
      if (declared.isNumber() && declared.asLong() != bits) {
        throw parts.problem(
            zeros, "codes of " + bits + " bits", declared.asLong() + " as the config says");
      }
      return (int) bits;
    }

    private long group(Tensor scales, long k, long groups, JsonNode config) {
      JsonNode declared = config.path("group_size");
      long group = declared.isIntegralNumber() ? declared.asLong() : Math.ceilDiv(k, groups);
      if (group == -1) {
        group = k;
      }
      if (group < 1 || Math.ceilDiv(k, group) != groups) {
        throw parts.problem(
            scales,
            groups + " groups of K = " + k,
            (group < 1 ? "groups of at least 1" : Math.ceilDiv(k, group) + " of " + group));
      }
      return group;
    }
  }
}
