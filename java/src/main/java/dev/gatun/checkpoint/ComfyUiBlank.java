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
  /** Rows whose block scales lie together; after so many, those of the next ones begin. */
  static final long TILE_ROWS = 128;

  private static final String SCALE = ".weight_scale";
  private static final ComfyBlockLayout MXFP8 = new ComfyBlockLayout(Encoding.F8_E4M3);
  private static final ComfyBlockLayout NVFP4 = new ComfyBlockLayout(Encoding.F4_E2M1);

  private Tensor allocate(String part, DType dtype, Long... shape) {
    return WriterSupport.allocate(arena, layer + part, dtype, shape);
  }

  /** The tensors of a weight whose codes and scales go row after row; not those with groups. */
  static List<SafetensorsWriter.Entry> entries(ComfyFormat format, String layer, long n, long k) {
    String weight = layer + Parts.WEIGHT;
    List<SafetensorsWriter.Entry> entries = new ArrayList<>();
    switch (format) {
      case CONVROT_W4A4 -> {
        entries.add(WriterSupport.entry(weight, format.codes(), n, k / 2));
        entries.add(WriterSupport.entry(layer + SCALE, DType.F32, n));
      }
      case MXFP8 -> {
        long columns = roundUp(k, MXFP8.block());
        entries.add(
            WriterSupport.entry(weight, format.codes(), roundUp(n, MXFP8.block()), columns));
        entries.add(tiles(layer, DType.F8_E8M0, n, columns / MXFP8.block()));
      }
      case NVFP4 -> {
        long columns = roundUp(k, NVFP4.block());
        entries.add(
            WriterSupport.entry(weight, format.codes(), roundUp(n, NVFP4.block()), columns / 2));
        entries.add(tiles(layer, DType.F8_E4M3, n, columns / NVFP4.block()));
        entries.add(WriterSupport.entry(layer + SCALE + "_2", DType.F32));
      }
      default -> {
        entries.add(WriterSupport.entry(weight, format.codes(), n, k));
        entries.add(
            switch (format) {
              case INT8_ROW, INT8_CONVROT -> WriterSupport.entry(layer + SCALE, DType.F32, n, 1L);
              case SCALED_FP8 -> WriterSupport.entry(layer + ".scale_weight", DType.F32);
              default -> WriterSupport.entry(layer + SCALE, DType.F32);
            });
      }
    }
    if (format.isMarkedByTensor()) {
      entries.add(WriterSupport.textEntry(layer + ComfyUi.MARK, format.mark()));
    }
    return entries;
  }

  /** Scales in cuBLAS' tiles, padded to whole ones. */
  private static SafetensorsWriter.Entry tiles(String layer, DType dtype, long n, long columns) {
    return WriterSupport.entry(layer + SCALE, dtype, roundUp(n, TILE_ROWS), roundUp(columns, 4));
  }

  private List<Tensor> tensors(ComfyFormat format) {
    return entries(format, layer, n, k).stream()
        .filter(entry -> !entry.name().endsWith(ComfyUi.MARK))
        .map(entry -> WriterSupport.allocate(arena, entry))
        .toList();
  }

  /** One scale, or one per row, and nothing else. */
  LayerWriter.Blank bytes(ComfyFormat format) {
    List<Tensor> tensors = tensors(format);
    Tensor codes = tensors.get(0);
    Tensor scales = tensors.get(1);
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
    List<Tensor> tensors = tensors(ComfyFormat.CONVROT_W4A4);
    Tensor codes = tensors.get(0);
    Tensor scales = tensors.get(1);
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
    Tensor scales = allocate(SCALE, dtype, groups, n);
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
    List<Tensor> tensors = tensors(ComfyFormat.MXFP8);
    Tensor codes = tensors.get(0);
    Tensor scales = tensors.get(1);
    long columns = roundUp(k, MXFP8.block());
    Supplier<Matrix> matrix =
        () -> MXFP8.matrix(n, k, columns, codes.data(), scales.data(), 1f, type, arena);
    return new LayerWriter.Blank(
        marked(ComfyFormat.MXFP8, codes, scales), matrix.get(), blank -> matrix.get());
  }

  /**
   * Padded to whole blocks.
   *
   * @param scale of the whole tensor
   */
  LayerWriter.Blank nvfp4(float scale) {
    List<Tensor> tensors = tensors(ComfyFormat.NVFP4);
    Tensor codes = tensors.get(0);
    Tensor scales = tensors.get(1);
    Tensor global = tensors.get(2);
    Numbers.put(Encoding.F32, global.data(), 0, scale);
    long columns = roundUp(k, NVFP4.block());
    return LayerWriter.Blank.of(
        marked(ComfyFormat.NVFP4, codes, scales, global),
        NVFP4.matrix(n, k, columns / 2, codes.data(), scales.data(), scale, type, arena));
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
