package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.StaticActivations;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.codec.Hadamard;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.ComfyAwqLayout;
import dev.gatun.layout.ComfyBlockLayout;
import dev.gatun.layout.ComfyCodebookLayout;
import dev.gatun.layout.ComfyFloat8Layout;
import dev.gatun.layout.ComfyInt8Layout;
import dev.gatun.layout.ComfyRotatedInt4Layout;
import dev.gatun.layout.Layout;
import java.lang.foreign.MemorySegment;
import java.util.EnumMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/** The weights of a ComfyUI checkpoint, one method a format of its QUANT_ALGOS. */
final class ComfyUiLayers {
  private static final int DEFAULT_ROTATION = 256;
  private static final Set<String> FORMATS =
      Set.of(
          "float8_e4m3fn",
          "float8_e5m2",
          "nvfp4",
          "mxfp8",
          "int8_tensorwise",
          "convrot_w4a4",
          "asym_w4a8_int8",
          "awq_w4a16");

  private final Parts parts;
  private final Encoding otherType;
  private final Map<String, QuantizedTensor> layers = new LinkedHashMap<>();
  private final Set<String> claimed = new HashSet<>();

  ComfyUiLayers(Parts parts) {
    this.parts = parts;
    this.otherType = mostFrequentType(parts.source());
  }

  static boolean reads(String format) {
    return FORMATS.contains(format);
  }

  Map<String, QuantizedTensor> layers() {
    return layers;
  }

  /** Whether a tensor is part of a weight that was read. */
  boolean isPart(String tensor) {
    return claimed.contains(tensor);
  }

  /** Reads the weight of a marked layer. */
  void read(String layer, ComfyMark mark) {
    String format = mark.format();
    Tensor weight =
        parts.require(layer + Parts.WEIGHT, "the weight of a layer that is marked as " + format);
    switch (format) {
      case "float8_e4m3fn", "float8_e5m2" -> {
        parts.dtype(weight, format.equals("float8_e5m2") ? DType.F8_E5M2 : DType.F8_E4M3);
        Tensor scale = scale(layer, format, ".weight_scale");
        boolean full = mark.flag("full_precision_matrix_mult");
        float8(layer, weight, scale, ".input_scale", !full);
      }
      case "nvfp4" -> block(layer, weight, new ComfyBlockLayout(Encoding.F4_E2M1));
      case "mxfp8" -> block(layer, weight, new ComfyBlockLayout(Encoding.F8_E4M3));
      case "int8_tensorwise" -> int8(layer, weight, mark);
      case "convrot_w4a4" -> rotatedInt4(layer, weight, mark);
      case "asym_w4a8_int8" -> codebook(layer, weight, mark);
      default -> awq(layer, weight, mark);
    }
  }

  private Tensor scale(String layer, String format, String part) {
    return parts.require(layer + part, "the scales of a " + format + " weight");
  }

  /**
   * 8-bit floats with one scale, or with none.
   *
   * @param rounds whether ComfyUI rounds x as well when it multiplies: always to e4m3fn
   */
  void float8(
      String layer, Tensor weight, @Nullable Tensor scale, String inputScale, boolean rounds) {
    Encoding dtype = dtype(layer);
    Parts.Size size = Parts.Size.of(weight.shape());
    Optional<Matrix.Values> one = Optional.ofNullable(scale).map(parts::scalar);
    ComfyFloat8Layout layout = new ComfyFloat8Layout(Parts.encoding(weight), scale != null);
    Map<String, Tensor> roles = roles(weight, "scales", scale);
    activations(layer, inputScale, size.k(), roles);
    add(
        layer,
        weight.shape(),
        layout,
        roles,
        () -> layout.matrix(size.n(), size.k(), weight.data(), one, dtype),
        dtype);
    if (rounds) {
      rounds(layer, new StaticActivations(Encoding.F8_E4M3, true, false));
    }
  }

  /** Rows and columns are stored padded; bias and input multiplier tell how many count. */
  private void block(String layer, Tensor weight, ComfyBlockLayout layout) {
    boolean fp4 = layout.encoding() == Encoding.F4_E2M1;
    String format = fp4 ? "nvfp4" : "mxfp8";
    parts.matrix(weight);
    if (fp4) {
      parts.dtype(weight, DType.U8, DType.I8);
    } else {
      parts.dtype(weight, DType.F8_E4M3);
    }
    long rows = weight.shape().get(0);
    long rowBytes = weight.shape().get(1);
    long columns = fp4 ? Math.multiplyExact(rowBytes, 2L) : rowBytes;
    long block = layout.block();
    if (rows % block != 0 || columns % block != 0) {
      throw parts.problem(
          weight,
          "shape " + weight.shape() + " for " + rows + " x " + columns + " weights",
          "sizes padded to a multiple of " + block);
    }
    Tensor scales = scale(layer, format, ".weight_scale");
    parts.dtype(scales, DType.U8, fp4 ? DType.F8_E4M3 : DType.F8_E8M0);
    parts.count(
        scales, Math.multiplyExact(roundUp(rows, 128), roundUp(Math.ceilDiv(columns, block), 4)));
    Map<String, Tensor> roles = roles(weight, "scales", scales);
    Optional<Matrix.Values> global = Optional.empty();
    if (fp4) {
      Tensor scale = scale(layer, format, ".weight_scale_2");
      global = Optional.of(parts.scalar(scale));
      roles.put("global_scale", scale);
    }
    long n = counting(layer + ".bias", rows, block);
    long k = counting(layer + Checkpoint.INPUT_MULTIPLIER, columns, block);
    activations(layer, ".input_scale", k, roles);
    Encoding dtype = dtype(layer);
    Optional<Matrix.Values> one = global;
    add(
        layer,
        List.of(n, k),
        layout,
        roles,
        () ->
            layout.matrix(
                n,
                k,
                rowBytes,
                weight.data(),
                scales.data(),
                one.map(v -> Numbers.get(v.type(), v.data(), 0)).orElse(1f),
                dtype,
                parts.source().arena()),
        dtype);
  }

  /** A size before padding, as the vector with one number for each says. */
  private long counting(String vector, long padded, long block) {
    return parts
        .find(vector)
        .filter(t -> t.shape().size() == 1)
        .map(Tensor::elements)
        .filter(count -> count <= padded && count > padded - block)
        .orElse(padded);
  }

  private void int8(String layer, Tensor weight, ComfyMark mark) {
    parts.dtype(weight, DType.I8);
    Tensor scales = scale(layer, mark.format(), ".weight_scale");
    parts.dtype(scales, DType.F32, DType.F16, DType.BF16);
    Parts.Size size = rows(weight, scales);
    boolean perRow = scales.elements() != 1 || !scales.shape().stream().allMatch(s -> s == 1);
    parts.count(scales, perRow ? size.n() : 1);
    int rotation = mark.flag("convrot") ? mark.size("convrot_groupsize", DEFAULT_ROTATION) : 0;
    checkRotation(weight, size.k(), rotation);
    ComfyInt8Layout layout = new ComfyInt8Layout(perRow, rotation);
    Map<String, Tensor> roles = roles(weight, "scales", scales);
    activations(layer, ".input_scale", size.k(), roles);
    Encoding dtype = dtype(layer);
    add(
        layer,
        weight.shape(),
        layout,
        roles,
        () -> layout.matrix(size.n(), size.k(), weight.data(), Parts.values(scales), dtype),
        dtype);
    if (roles.containsKey(QuantizedTensor.INPUT_SCALE) && rotation == 0) {
      // ComfyUI itself always looks for the largest of each row of x.
      rounds(layer, new StaticActivations(Encoding.I8, false, false));
    }
  }

  private void rounds(String layer, StaticActivations how) {
    layers.computeIfPresent(layer, (name, read) -> read.withActivations(Optional.of(how)));
  }

  /** Banks of experts have leading dimensions: there are as many rows as scales. */
  private static Parts.Size rows(Tensor weight, Tensor scales) {
    Parts.Size size = Parts.Size.of(weight.shape());
    if (weight.shape().size() > 2 && scales.elements() != 1 && scales.elements() != size.n()) {
      long k = weight.shape().getLast();
      return new Parts.Size(k == 0 ? 0 : weight.elements() / k, k);
    }
    return size;
  }

  private void rotatedInt4(String layer, Tensor weight, ComfyMark mark) {
    Parts.Size size = nibbles(weight);
    Tensor scales = scale(layer, mark.format(), ".weight_scale");
    Matrix.Values values = parts.floats(scales, size.n());
    int rotation = mark.size("convrot_groupsize", DEFAULT_ROTATION);
    checkRotation(weight, size.k(), rotation);
    ComfyRotatedInt4Layout layout = new ComfyRotatedInt4Layout(rotation);
    Map<String, Tensor> roles = roles(weight, "scales", scales);
    activations(layer, ".input_scale", size.k(), roles);
    Encoding dtype = dtype(layer);
    add(
        layer,
        List.of(size.n(), size.k()),
        layout,
        roles,
        () -> layout.matrix(size.n(), size.k(), weight.data(), values, dtype),
        dtype);
  }

  private void codebook(String layer, Tensor weight, ComfyMark mark) {
    Parts.Size size = nibbles(weight);
    Tensor relative = scale(layer, mark.format(), ".weight_s_rel");
    parts.dtype(relative, DType.F8_E4M3, DType.U8, DType.F32);
    long group = mark.size("group_size", 16);
    parts.count(relative, Math.multiplyExact(size.n(), groups(weight, size.k(), group)));
    Encoding type = relative.dtype() == DType.F32 ? Encoding.F32 : Encoding.F8_E4M3;
    Tensor rows = scale(layer, mark.format(), ".weight_s_channel");
    parts.dtype(rows, DType.F32);
    parts.count(rows, size.n());
    int rotation = mark.size("convrot_groupsize", DEFAULT_ROTATION);
    checkRotation(weight, size.k(), rotation);
    Map<String, Tensor> roles = roles(weight, "scales", relative);
    roles.put("row_scales", rows);
    Optional<Tensor> codebook = parts.find(layer + ".weight_codebook");
    codebook.ifPresent(
        t -> {
          parts.dtype(t, DType.F32);
          parts.count(t, 16);
          roles.put("codebook", t);
        });
    activations(layer, ".input_scale", size.k(), roles);
    ComfyCodebookLayout layout = new ComfyCodebookLayout(group, rotation);
    Encoding dtype = dtype(layer);
    Optional<MemorySegment> table = codebook.map(Tensor::data);
    add(
        layer,
        List.of(size.n(), size.k()),
        layout,
        roles,
        () ->
            layout.matrix(
                size.n(),
                size.k(),
                weight.data(),
                table,
                new Matrix.Values(type, relative.data()),
                rows.data(),
                dtype),
        dtype);
  }

  private void awq(String layer, Tensor weight, ComfyMark mark) {
    Parts.Size size = nibbles(weight);
    long group = mark.size("group_size", 64);
    long count = Math.multiplyExact(size.n(), groups(weight, size.k(), group));
    Tensor scales = scale(layer, mark.format(), ".weight_scale");
    Tensor zeros = scale(layer, mark.format(), ".weight_zeros");
    Matrix.Values scaleValues = parts.floats(scales, count);
    Matrix.Values zeroValues = parts.floats(zeros, count);
    Map<String, Tensor> roles = roles(weight, "scales", scales);
    roles.put("offsets", zeros);
    activations(layer, ".input_scale", size.k(), roles);
    ComfyAwqLayout layout = new ComfyAwqLayout(group);
    Encoding dtype = Parts.encoding(scales);
    add(
        layer,
        List.of(size.n(), size.k()),
        layout,
        roles,
        () -> layout.matrix(size.n(), size.k(), weight.data(), scaleValues, zeroValues, dtype),
        dtype);
  }

  /** The sizes of a weight with two codes a byte. */
  private Parts.Size nibbles(Tensor weight) {
    parts.dtype(weight, DType.I8, DType.U8);
    if (weight.shape().size() < 2) {
      throw parts.problem(weight, "shape " + weight.shape(), "[N, K/2]");
    }
    long bytes = weight.shape().getLast();
    return new Parts.Size(
        bytes == 0 ? 0 : weight.elements() / bytes, Math.multiplyExact(bytes, 2L));
  }

  private long groups(Tensor weight, long k, long group) {
    if (k % group != 0) {
      throw parts.problem(weight, "K = " + k, "a multiple of the group of " + group);
    }
    return k / group;
  }

  private void checkRotation(Tensor weight, long k, int rotation) {
    if (rotation != 0 && (!Hadamard.exists(rotation) || k % rotation != 0)) {
      throw parts.problem(
          weight,
          "K = " + k + " rotated by " + rotation,
          "a rotation by a power of 4 that divides K");
    }
  }

  /** What belongs to the layer's input: its scale, and what it is multiplied by. */
  private void activations(String layer, String scale, long k, Map<String, Tensor> roles) {
    parts
        .find(layer + scale)
        .ifPresent(
            t -> {
              parts.scalar(t);
              roles.put(QuantizedTensor.INPUT_SCALE, t);
            });
    parts
        .find(layer + Checkpoint.INPUT_MULTIPLIER)
        .ifPresent(
            t -> {
              parts.floats(t, k);
              roles.put(QuantizedTensor.INPUT_MULTIPLIER, t);
            });
  }

  private static Map<String, Tensor> roles(Tensor weight, String role, @Nullable Tensor part) {
    Map<String, Tensor> roles = new LinkedHashMap<>();
    roles.put("codes", weight);
    if (part != null) {
      roles.put(role, part);
    }
    return roles;
  }

  private void add(
      String layer,
      List<Long> shape,
      Layout layout,
      Map<String, Tensor> roles,
      Supplier<Matrix> matrix,
      Encoding dtype) {
    layers.put(layer, QuantizedTensor.lazy(layer, shape, layout, roles, matrix, dtype));
    roles.values().forEach(t -> claimed.add(t.name()));
  }

  private Encoding dtype(String layer) {
    return parts
        .find(layer + ".bias")
        .filter(Parts::isFloat)
        .map(Parts::encoding)
        .orElse(otherType);
  }

  private static Encoding mostFrequentType(CheckpointSource source) {
    Map<Encoding, Integer> counts = new EnumMap<>(Encoding.class);
    for (Tensor tensor : source.tensors().values()) {
      String name = tensor.name();
      boolean parameter = name.endsWith(Parts.WEIGHT) || name.endsWith(".bias");
      if (parameter && Parts.isFloat(tensor)) {
        counts.merge(Parts.encoding(tensor), 1, Integer::sum);
      }
    }
    return counts.entrySet().stream()
        .max(Map.Entry.comparingByValue())
        .map(Map.Entry::getKey)
        .orElse(Encoding.F32);
  }

  private static long roundUp(long size, long multiple) {
    return Math.multiplyExact(Math.ceilDiv(size, multiple), multiple);
  }
}
