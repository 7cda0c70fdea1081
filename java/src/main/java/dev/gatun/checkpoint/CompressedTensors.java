package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.StaticActivations;
import dev.gatun.Tensor;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.CompressedTensorsLayout;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * compressed-tensors (vLLM, llm-compressor): {@code X.weight_packed} or {@code X.weight} with
 * {@code X.weight_scale}, described by {@code config.json}'s {@code quantization_config}. Source:
 * compressed_tensors/compressors.
 */
public final class CompressedTensors implements ReadOnlyFormat {
  private static final String PACKED = ".weight_packed";
  private static final String SCALE = ".weight_scale";
  private static final List<String> ACTIVATIONS =
      List.of("input_scale", "input_zero_point", "input_global_scale", "output_scale");

  /** For {@link java.util.ServiceLoader}. */
  public CompressedTensors() {}

  @Override
  public String name() {
    return "compressed-tensors";
  }

  @Override
  public Found read(CheckpointSource source) {
    return new Reader(new Parts(source), CompressedTensorsConfig.of(source)).read();
  }

  private record Reader(Parts parts, CompressedTensorsConfig config) {
    Found read() {
      List<QuantizedTensor> layers = new ArrayList<>();
      Map<String, String> unsupported = new LinkedHashMap<>();
      Map<String, String> side = new LinkedHashMap<>();
      for (Tensor tensor : parts.source().tensors().values()) {
        String name = tensor.name();
        if (name.endsWith(PACKED)) {
          packed(name.substring(0, name.length() - PACKED.length()), tensor, layers, unsupported);
        } else if (config.present() && name.endsWith(SCALE)) {
          String layer = name.substring(0, name.length() - SCALE.length());
          if (!parts.source().tensors().containsKey(layer + PACKED)) {
            layers.add(bytes(layer, tensor));
          }
        }
      }
      SortedNames names = new SortedNames(parts.source().tensors().keySet());
      for (String layer : unsupported.keySet()) {
        names.startingWith(layer + ".").stream()
            .filter(n -> !n.endsWith(".bias"))
            .forEach(n -> side.put(n, "part of a compressed-tensors weight that is not read"));
      }
      return new Found(layers, side, unsupported);
    }

    private void packed(
        String layer, Tensor codes, List<QuantizedTensor> layers, Map<String, String> unsupported) {
      Optional<Tensor> scale = parts.find(layer + SCALE);
      if (parts.find(layer + ".meta").isPresent()) {
        unsupported.put(layer, "compressed-tensors' marlin-24 (2:4 sparse) is not read");
      } else if (codes.dtype() == DType.U8 || codes.dtype() == DType.I8) {
        layers.add(float4(layer, codes));
      } else if (scale.isPresent() || parts.find(layer + ".weight_shape").isPresent()) {
        layers.add(integers(layer, codes));
      } else {
        throw Problem.tensor(
            parts.source().fileOf(codes.name()),
            layer + SCALE,
            "no such tensor",
            "the scales of a packed weight");
      }
    }

    private QuantizedTensor float4(String layer, Tensor codes) {
      parts.matrix(codes);
      long n = codes.shape().get(0);
      long k = Math.multiplyExact(codes.shape().get(1), 2L);
      Tensor scales = parts.require(layer + SCALE, "the scales of a packed 4-bit float weight");
      Optional<Tensor> global = parts.find(layer + ".weight_global_scale");
      boolean nv = global.isPresent() || scales.dtype() == DType.F8_E4M3;
      if (nv && global.isEmpty()) {
        parts.require(layer + ".weight_global_scale", "the global scale of an nvfp4 weight");
      }
      parts.dtype(scales, DType.U8, nv ? DType.F8_E4M3 : DType.F8_E8M0);
      parts.shape(scales, n, Math.ceilDiv(k, nv ? 16L : 32L));
      Map<String, Tensor> roles = roles(layer, codes, scales);
      global.ifPresent(
          t -> {
            parts.floats(t, 1);
            roles.put("global_scale", t);
          });
      CompressedTensorsLayout layout =
          new CompressedTensorsLayout(
              nv ? "nvfp4-pack-quantized" : "mxfp4-pack-quantized", Encoding.F4_E2M1);
      return QuantizedTensor.lazy(
          layer,
          List.of(n, k),
          layout,
          roles,
          () ->
              layout.block(
                  n,
                  k,
                  codes.data(),
                  scales.data(),
                  global.map(SmallParts::first),
                  parts.source().arena()),
          Encoding.BF16);
    }

    /** Integers of 1 to 8 bits in 32-bit words along K. */
    private QuantizedTensor integers(String layer, Tensor codes) {
      parts.dtype(codes, DType.I32, DType.U32);
      parts.matrix(codes);
      Tensor shape = parts.require(layer + ".weight_shape", "the shape of a packed weight");
      parts.dtype(shape, DType.I64, DType.I32);
      parts.count(shape, 2);
      long n = SmallParts.whole(shape, 0);
      long k = SmallParts.whole(shape, 1);
      long words = codes.shape().get(1);
      if (n != codes.shape().get(0) || k < 1) {
        throw parts.problem(
            shape, "[" + n + ", " + k + "]", "the " + codes.shape().get(0) + " rows of the codes");
      }
      int bits = bits(layer, codes, k, words);
      Tensor scales = parts.require(layer + SCALE, "the scales of a packed weight");
      Granularity granularity = granularity(layer, scales, n, k);
      long groups = scales.elements() == 1 ? 1 : scales.shape().getLast();
      Optional<Tensor> zeros = parts.find(layer + ".weight_zero_point");
      int perWord = 32 / bits;
      zeros.ifPresent(
          t -> {
            parts.dtype(t, DType.I32, DType.U32, DType.I8);
            if (t.dtype() == DType.I8) {
              parts.count(t, scales.elements());
            } else {
              parts.shape(t, Math.ceilDiv(n, (long) perWord), groups);
            }
          });
      Map<String, Tensor> roles = roles(layer, codes, scales);
      zeros.ifPresent(t -> roles.put("zeros", t));
      Optional<Tensor> index = index(layer, k, roles);
      CompressedTensorsLayout layout =
          new CompressedTensorsLayout("pack-quantized", Encoding.unsigned(bits));
      int middle = 1 << bits - 1;
      long group = granularity instanceof Granularity.Tile t ? t.cols() : k;
      return QuantizedTensor.lazy(
          layer,
          List.of(n, k),
          layout,
          roles,
          () -> {
            SmallParts small = new SmallParts(parts);
            return layout.scaled(
                n,
                k,
                codes.data(),
                4 * words,
                granularity,
                Parts.values(scales),
                zeros.map(
                    t -> new Matrix.Values(Encoding.U8, zeroPoints(small, t, n, groups, bits))),
                zeros.isPresent() ? 0 : middle,
                small.columnGroups(index, group, groups));
          },
          Parts.encoding(scales));
    }

    /** Zero points as they are stored, plus half the range: what is taken from the stored codes. */
    private static MemorySegment zeroPoints(
        SmallParts small, Tensor zeros, long n, long groups, int bits) {
      if (zeros.dtype() == DType.I8) {
        long columns = zeros.elements() / n == 0 ? 1 : zeros.elements() / n;
        long rows = zeros.elements() / columns;
        return small.bytes(
            rows,
            columns,
            (r, c) -> zeros.data().get(ValueLayout.JAVA_BYTE, r * columns + c) + (1 << bits - 1));
      }
      int perWord = 32 / bits;
      return small.bytes(
          n,
          groups,
          (r, c) ->
              SmallParts.bits(zeros, (r / perWord * groups + c) * 32 + r % perWord * bits, bits));
    }

    /** The declared width, which the words must agree with; else the only one that they allow. */
    private int bits(String layer, Tensor codes, long k, long words) {
      Optional<Integer> declared = config.bits(layer);
      List<Integer> candidates =
          declared.isPresent() ? List.of(declared.get()) : List.of(4, 8, 2, 3, 5, 6, 1, 7);
      for (int bits : candidates) {
        if (bits >= 1 && bits <= 8 && Math.ceilDiv(k, 32L / bits) == words) {
          return bits;
        }
      }
      throw parts.problem(
          codes,
          words + " words a row for K = " + k,
          declared.map(b -> "codes of " + b + " bits as the config says").orElse("1 to 8 bits"));
    }

    /** Codes of a whole byte each: 8-bit integers or floats. */
    private QuantizedTensor bytes(String layer, Tensor scales) {
      Tensor weight =
          parts.require(
              layer + Parts.WEIGHT, "the weight that " + Problem.quote(scales.name()) + " scales");
      parts.dtype(weight, DType.I8, DType.F8_E4M3);
      parts.dtype(scales, DType.F32, DType.F16, DType.BF16);
      if (weight.shape().size() < 2) {
        throw parts.problem(weight, "shape " + weight.shape(), "[N, K]");
      }
      Parts.Size size = Parts.Size.of(weight.shape());
      Granularity granularity = granularity(layer, scales, size.n(), size.k());
      Map<String, Tensor> roles = roles(layer, weight, scales);
      Optional<Tensor> zeros = parts.find(layer + ".weight_zero_point");
      zeros.ifPresent(
          t -> {
            parts.dtype(t, DType.I8, DType.F8_E4M3);
            parts.count(t, scales.elements());
            roles.put("zeros", t);
          });
      Optional<Tensor> index = index(layer, size.k(), roles);
      boolean integer = weight.dtype() == DType.I8;
      CompressedTensorsLayout layout =
          new CompressedTensorsLayout(
              integer ? "int-quantized" : "float-quantized", Parts.encoding(weight));
      long group = granularity instanceof Granularity.Tile t ? t.cols() : size.k();
      long groups = scales.elements() == 1 ? 1 : scales.shape().getLast();
      return QuantizedTensor.lazy(
              layer,
              weight.shape(),
              layout,
              roles,
              () ->
                  layout.scaled(
                      size.n(),
                      size.k(),
                      weight.data(),
                      0,
                      granularity,
                      Parts.values(scales),
                      zeros
                          .filter(t -> t.dtype() == DType.I8 && !SmallParts.isZero(t.data()))
                          .map(Parts::values),
                      0,
                      new SmallParts(parts).columnGroups(index, group, groups)),
              Parts.encoding(scales))
          .withActivations(activations(layer, Parts.encoding(weight)));
    }

    /** Static activations of the weight's type, one scale for the tensor and no zero point. */
    private Optional<StaticActivations> activations(String layer, Encoding encoding) {
      boolean scaled =
          parts
              .find(layer + "." + QuantizedTensor.INPUT_SCALE)
              .filter(t -> t.elements() == 1 && Parts.isFloat(t))
              .isPresent();
      boolean centred =
          parts
              .find(layer + ".input_zero_point")
              .map(t -> SmallParts.isZero(t.data()))
              .orElse(true);
      return scaled && centred
          ? Optional.of(new StaticActivations(encoding, false, false))
          : Optional.empty();
    }

    private Optional<Tensor> index(String layer, long k, Map<String, Tensor> roles) {
      Optional<Tensor> index = parts.find(layer + ".weight_g_idx");
      index.ifPresent(
          t -> {
            parts.dtype(t, DType.I32, DType.I64);
            parts.count(t, k);
            roles.put("column_groups", t);
          });
      return index;
    }

    /** By the shape of the scales: per tensor, row, group of columns, or block. */
    private Granularity granularity(String layer, Tensor scales, long n, long k) {
      parts.dtype(scales, DType.F32, DType.F16, DType.BF16);
      if (scales.elements() == 1 && n * k != 0) {
        return Granularity.perTensor(n, k);
      }
      List<Long> shape = scales.shape();
      if (shape.isEmpty() || shape.size() > 2 || scales.elements() == 0) {
        throw parts.problem(scales, "shape " + shape, "[1], [N, groups] or [blocks, blocks]");
      }
      long rows = shape.get(0);
      long columns = shape.size() == 1 ? 1 : shape.get(1);
      if (rows == n) {
        long group = config.groupSize(layer).filter(g -> g > 0).orElse(Math.ceilDiv(k, columns));
        if (columns == 1) {
          group = k;
        }
        if (Math.ceilDiv(k, group) != columns) {
          throw parts.problem(
              scales, "shape " + shape, "[" + n + ", " + Math.ceilDiv(k, group) + "]");
        }
        return new Granularity.Tile(1, group, columns, 1);
      }
      List<Long> block = config.block(layer);
      if (Math.ceilDiv(n, block.get(0)) != rows || Math.ceilDiv(k, block.get(1)) != columns) {
        throw parts.problem(
            scales,
            "shape " + shape + " for " + n + " x " + k,
            "one scale a row, a group of columns, or a block of " + block);
      }
      return new Granularity.Tile(block.get(0), block.get(1), columns, 1);
    }

    private Map<String, Tensor> roles(String layer, Tensor codes, Tensor scales) {
      Map<String, Tensor> roles = new LinkedHashMap<>();
      roles.put("codes", codes);
      roles.put("scales", scales);
      parts.find(layer + ".weight_shape").ifPresent(t -> roles.put("shape", t));
      for (String part : ACTIVATIONS) {
        parts.find(layer + "." + part).ifPresent(t -> roles.put(part, t));
      }
      return roles;
    }
  }
}
