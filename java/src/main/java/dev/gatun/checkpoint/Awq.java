package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.layout.AwqLayout;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * AutoAWQ's weights, laid for GEMM ({@code X.qweight} [K, N/8]) or GEMV ([N, K/8]); told from GPTQ,
 * which has the same names, by their shapes. Source: awq/modules/linear/gemm.py, gemv.py.
 */
public final class Awq implements ReadOnlyFormat {
  private static final String FAST = "AWQ laid for GEMV_FAST (16-bit words) is not read";

  /** For {@link java.util.ServiceLoader}. */
  public Awq() {}

  @Override
  public String name() {
    return "awq";
  }

  @Override
  public Found read(CheckpointSource source) {
    Reader reader = new Reader(new Parts(source), Gptq.config(source));
    List<QuantizedTensor> layers = new ArrayList<>();
    Map<String, String> unsupported = new LinkedHashMap<>();
    Map<String, String> side = new LinkedHashMap<>();
    for (Tensor codes : source.tensors().values()) {
      if (codes.name().endsWith(Gptq.CODES)) {
        String layer = codes.name().substring(0, codes.name().length() - Gptq.CODES.length());
        if (codes.dtype() == DType.I16) {
          unsupported.put(layer, FAST);
          for (String part : List.of(Gptq.CODES, ".qzeros", ".scales")) {
            new Parts(source).find(layer + part).ifPresent(t -> side.put(t.name(), FAST));
          }
        } else {
          reader.layer(layer, codes, layers);
        }
      }
    }
    return new Found(layers, side, unsupported);
  }

  private record Reader(Parts parts, JsonNode config) {
    void layer(String layer, Tensor codes, List<QuantizedTensor> layers) {
      Tensor scales = parts.find(layer + ".scales").orElse(null);
      Tensor zeros = parts.find(layer + ".qzeros").orElse(null);
      if (scales == null || zeros == null || !areMatrices(codes, scales, zeros)) {
        return; // GPTQ says what is wrong
      }
      long rows = codes.shape().get(0);
      long words = codes.shape().get(1);
      if (scales.shape().get(1) == 8 * words && zeros.shape().get(1) == words) {
        layers.add(gemm(layer, codes, scales, zeros, 8 * words, rows));
      } else if (scales.shape().get(0) == rows
          && zeros.shape().get(0) == rows
          && scales.shape().get(1) == 8 * zeros.shape().get(1)) {
        layers.add(gemv(layer, codes, scales, zeros, rows, 8 * words));
      }
    }

    private static boolean areMatrices(Tensor... tensors) {
      for (Tensor t : tensors) {
        if (t.shape().size() != 2 || t.elements() == 0) {
          return false;
        }
      }
      return true;
    }

    private void types(Tensor codes, Tensor scales, Tensor zeros) {
      parts.dtype(codes, DType.I32, DType.U32);
      parts.dtype(zeros, DType.I32, DType.U32);
      parts.dtype(scales, DType.F16, DType.BF16, DType.F32);
      long bits = config.path("bits").asLong(config.path("w_bit").asLong(4));
      if (bits != 4) {
        throw parts.problem(codes, "8 codes a word", bits + " bits as the config says");
      }
    }

    private long declaredGroup(long k) {
      JsonNode group = config.path("group_size");
      long size = (group.isMissingNode() ? config.path("q_group_size") : group).asLong(0);
      return size == -1 ? k : size;
    }

    private QuantizedTensor gemm(
        String layer, Tensor codes, Tensor scales, Tensor zeros, long n, long k) {
      types(codes, scales, zeros);
      long groups = scales.shape().get(0);
      long declared = declaredGroup(k);
      long group = declared > 0 ? declared : Math.ceilDiv(k, groups);
      if (Math.ceilDiv(k, group) != groups || zeros.shape().get(0) != groups) {
        throw parts.problem(
            scales, groups + " groups of K = " + k, Math.ceilDiv(k, group) + " of " + group);
      }
      AwqLayout layout = new AwqLayout(false, group);
      return QuantizedTensor.lazy(
          layer,
          List.of(n, k),
          layout,
          roles(codes, scales, zeros),
          () -> {
            Matrix packed =
                Matrix.builder(n, groups, layout.encoding(), zeros.data())
                    .codeOrder(CodeOrder.WORDS_N)
                    .build();
            MemorySegment points =
                new SmallParts(parts).bytes(groups, n, (g, o) -> MatrixValues.code(packed, o, g));
            return layout.matrix(n, k, codes.data(), Parts.values(scales), n, points);
          },
          Parts.encoding(scales));
    }

    private QuantizedTensor gemv(
        String layer, Tensor codes, Tensor scales, Tensor zeros, long n, long k) {
      types(codes, scales, zeros);
      long words = zeros.shape().get(1);
      long group = gemvGroup(scales, k, words);
      AwqLayout layout = new AwqLayout(true, group);
      return QuantizedTensor.lazy(
          layer,
          List.of(n, k),
          layout,
          roles(codes, scales, zeros),
          () -> {
            MemorySegment points =
                new SmallParts(parts)
                    .bytes(
                        n, 8 * words, (o, g) -> SmallParts.bits(zeros, o * words * 32 + g * 4, 4));
            return layout.matrix(n, k, codes.data(), Parts.values(scales), 8 * words, points);
          },
          Parts.encoding(scales));
    }

    /** The number of groups is padded: the declared size, or the usual one that gives so many. */
    private long gemvGroup(Tensor scales, long k, long words) {
      long declared = declaredGroup(k);
      for (long group : declared > 0 ? List.of(declared) : List.of(128L, 64L, 32L, k)) {
        long multiple = group >= 128 ? 1 : group == 64 ? 2 : 4;
        long needed = Math.ceilDiv(Math.ceilDiv(k, group), 8L);
        if (Math.ceilDiv(needed, multiple) * multiple == words) {
          return group;
        }
      }
      throw parts.problem(
          scales,
          "shape " + scales.shape() + " for K = " + k,
          "groups of " + (declared > 0 ? declared : "32, 64 or 128") + ", padded");
    }

    private static Map<String, Tensor> roles(Tensor codes, Tensor scales, Tensor zeros) {
      Map<String, Tensor> roles = new LinkedHashMap<>();
      roles.put("codes", codes);
      roles.put("scales", scales);
      roles.put("zeros", zeros);
      return roles;
    }
  }
}
