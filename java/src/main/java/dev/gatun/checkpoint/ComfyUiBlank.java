package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.ComfyAwqLayout;
import dev.gatun.layout.ComfyBlockLayout;
import dev.gatun.layout.ComfyCodebookLayout;
import dev.gatun.layout.ComfyFloat8Layout;
import dev.gatun.layout.ComfyInt8Layout;
import dev.gatun.layout.ComfyRotatedInt4Layout;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Supplier;

/**
 * The tensors of ComfyUI's weights under their names and the matrices over them: codes first, then
 * scales, then what else a format has, the layer's mark last, if it is a tensor.
 *
 * @param type of the weight: what it is dequantized to
 */
record ComfyUiBlank(String layer, long n, long k, Encoding type, Arena arena) {
  private Tensor allocate(String part, DType dtype, Long... shape) {
    return WriterSupport.allocate(arena, layer + part, dtype, shape);
  }

  /** The tensors of {@link #bytes}. */
  static List<SafetensorsWriter.Entry> bytes(ComfyFormat format, String layer, long n, long k) {
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    entries.add(WriterSupport.entry(layer + Parts.WEIGHT, format.codes(), n, k));
    entries.add(
        switch (format) {
          case INT8_ROW, INT8_CONVROT ->
              WriterSupport.entry(layer + ".weight_scale", DType.F32, n, 1L);
          case SCALED_FP8 -> WriterSupport.entry(layer + ".scale_weight", DType.F32);
          default -> WriterSupport.entry(layer + ".weight_scale", DType.F32);
        });
    if (format.isMarkedByTensor()) {
      entries.add(WriterSupport.textEntry(layer + ComfyUi.MARK, format.mark()));
    }
    return entries;
  }

  /** One scale, or one per row, and nothing else. */
  LayerWriter.Blank bytes(ComfyFormat format) {
    List<SafetensorsWriter.Entry> entries = bytes(format, layer, n, k);
    Tensor codes = WriterSupport.allocate(arena, entries.get(0));
    Tensor scales = WriterSupport.allocate(arena, entries.get(1));
    Matrix.Values values = Parts.values(scales);
    boolean perRow = format == ComfyFormat.INT8_ROW || format == ComfyFormat.INT8_CONVROT;
    int rotation = format == ComfyFormat.INT8_CONVROT ? ComfyFormat.ROTATION : 0;
    Matrix matrix =
        format.codes() == DType.I8
            ? new ComfyInt8Layout(perRow, rotation).matrix(n, k, codes.data(), values, type)
            : new ComfyFloat8Layout(Parts.encoding(codes), true)
                .matrix(n, k, codes.data(), Optional.of(values), type);
    return LayerWriter.Blank.of(marked(format, codes, scales), matrix);
  }

  /** Signed nibbles of a rotated weight. */
  LayerWriter.Blank rotatedInt4() {
    Tensor codes = allocate(Parts.WEIGHT, DType.I8, n, k / 2);
    Tensor scales = allocate(".weight_scale", DType.F32, n);
    Matrix matrix =
        new ComfyRotatedInt4Layout(ComfyFormat.ROTATION)
            .matrix(n, k, codes.data(), Parts.values(scales), type);
    return LayerWriter.Blank.of(marked(ComfyFormat.CONVROT_W4A4, codes, scales), matrix);
  }

  /**
   * Codes of a codebook, a relative scale per group, a scale per row.
   *
   * @param codebook 16 rising numbers
   */
  LayerWriter.Blank codebook(float[] codebook) {
    Tensor codes = allocate(Parts.WEIGHT, DType.I8, n, k / 2);
    Tensor relative = allocate(".weight_s_rel", DType.F8_E4M3, n, k / ComfyFormat.CODEBOOK_GROUP);
    Tensor rows = allocate(".weight_s_channel", DType.F32, n);
    Tensor table = allocate(".weight_codebook", DType.F32, 16L);
    for (int i = 0; i < codebook.length; i++) {
      Numbers.put(Encoding.F32, table.data(), i, codebook[i]);
    }
    Matrix matrix =
        new ComfyCodebookLayout(ComfyFormat.CODEBOOK_GROUP, ComfyFormat.ROTATION)
            .matrix(
                n,
                k,
                codes.data(),
                Optional.of(table.data()),
                Parts.values(relative),
                rows.data(),
                type);
    return LayerWriter.Blank.of(
        marked(ComfyFormat.ASYM_W4A8_INT8, codes, relative, rows, table), matrix);
  }

  /** Nibbles with a scale and an offset per group, of 16 bits: BF16 for an F32 weight. */
  LayerWriter.Blank awq() {
    DType dtype = type == Encoding.F16 ? DType.F16 : DType.BF16;
    long groups = k / ComfyFormat.AWQ_GROUP;
    Tensor codes = allocate(Parts.WEIGHT, DType.I8, n, k / 2);
    Tensor scales = allocate(".weight_scale", dtype, groups, n);
    Tensor zeros = allocate(".weight_zeros", dtype, groups, n);
    Matrix matrix =
        new ComfyAwqLayout(ComfyFormat.AWQ_GROUP)
            .matrix(
                n,
                k,
                codes.data(),
                Parts.values(scales),
                Parts.values(zeros),
                Parts.encoding(scales));
    return LayerWriter.Blank.of(marked(ComfyFormat.AWQ_W4A16, codes, scales, zeros), matrix);
  }

  /** Padded to whole blocks. */
  LayerWriter.Blank mxfp8() {
    ComfyBlockLayout layout = new ComfyBlockLayout(Encoding.F8_E4M3);
    long rows = roundUp(n, layout.block());
    long columns = roundUp(k, layout.block());
    Tensor codes = allocate(Parts.WEIGHT, DType.F8_E4M3, rows, columns);
    Tensor scales = blockScales(DType.F8_E8M0, rows, columns / layout.block());
    Supplier<Matrix> matrix =
        () -> layout.matrix(n, k, columns, codes.data(), scales.data(), 1f, type, arena);
    return new LayerWriter.Blank(
        marked(ComfyFormat.MXFP8, codes, scales), matrix.get(), blank -> matrix.get());
  }

  /**
   * Padded to whole blocks.
   *
   * @param scale of the whole tensor
   */
  LayerWriter.Blank nvfp4(float scale) {
    ComfyBlockLayout layout = new ComfyBlockLayout(Encoding.F4_E2M1);
    long rows = roundUp(n, layout.block());
    long columns = roundUp(k, layout.block());
    Tensor codes = allocate(Parts.WEIGHT, DType.U8, rows, columns / 2);
    Tensor scales = blockScales(DType.F8_E4M3, rows, columns / layout.block());
    Tensor global = allocate(".weight_scale_2", DType.F32);
    Numbers.put(Encoding.F32, global.data(), 0, scale);
    return LayerWriter.Blank.of(
        marked(ComfyFormat.NVFP4, codes, scales, global),
        layout.matrix(n, k, columns / 2, codes.data(), scales.data(), scale, type, arena));
  }

  private Tensor blockScales(DType dtype, long rows, long columns) {
    return allocate(".weight_scale", dtype, roundUp(rows, 128), roundUp(columns, 4));
  }

  private static long roundUp(long size, long multiple) {
    return Math.multiplyExact(Math.ceilDiv(size, multiple), multiple);
  }

  private List<Tensor> marked(ComfyFormat format, Tensor... parts) {
    List<Tensor> tensors = new ArrayList<>(List.of(parts));
    if (format.isMarkedByTensor()) {
      tensors.add(WriterSupport.text(arena, layer + ComfyUi.MARK, format.mark()));
    }
    return tensors;
  }
}
