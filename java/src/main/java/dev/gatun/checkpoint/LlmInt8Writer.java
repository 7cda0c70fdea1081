package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.BitsAndBytesInt8Layout;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Writes bitsandbytes' LLM.int8() weights: rounded to half precision first, {@code code = round(w ·
 * (127 · (1 / SCB)))}, SCB being the row's largest magnitude.
 */
final class LlmInt8Writer implements LayerWriter {
  /** What {@code gatun quantize --format} offers. */
  static final Map<String, String> FORMATS =
      Map.of("llm-int8", "bitsandbytes LLM.int8(): 8-bit integers, one F32 maximum per row");

  @Override
  public boolean accepts(Tensor weight) {
    return WriterSupport.isFloatMatrix(weight);
  }

  @Override
  public Quantized quantize(String layer, Tensor weight, Backend backend, Arena arena) {
    long n = weight.shape().get(0);
    long k = weight.shape().get(1);
    Encoding type = Parts.encoding(weight);
    Blank made = blank(layer, n, k, arena);
    Tensor codes = made.tensors().get(0);
    Tensor maxima = made.tensors().get(1);
    for (long row = 0; row < n; row++) {
      float largest = 0;
      for (long i = row * k; i < (row + 1) * k; i++) {
        largest = Math.max(largest, Math.abs(half(type, weight, i)));
      }
      Numbers.put(Encoding.F32, maxima.data(), row, largest);
      float scale = 127f * (1f / largest);
      for (long i = row * k; i < (row + 1) * k; i++) {
        int code = Codebooks.encode(Encoding.I8, half(type, weight, i) * scale);
        codes.data().set(ValueLayout.JAVA_BYTE, i, (byte) code);
      }
    }
    return made.finished();
  }

  @Override
  public Optional<Blank> blank(String layer, QuantizedTensor weight, Arena arena) {
    return Optional.of(blank(layer, weight.matrix().n(), weight.matrix().k(), arena));
  }

  private static Blank blank(String layer, long n, long k, Arena arena) {
    List<Tensor> tensors =
        entries(layer, n, k).stream().map(e -> WriterSupport.allocate(arena, e)).toList();
    Matrix matrix =
        new BitsAndBytesInt8Layout().matrix(n, k, tensors.get(0).data(), tensors.get(1).data());
    return Blank.of(tensors, matrix);
  }

  /** Codes, maxima, and the number of the codes' order. */
  private static List<SafetensorsWriter.Entry> entries(String layer, long n, long k) {
    return List.of(
        WriterSupport.entry(layer + Parts.WEIGHT, DType.I8, n, k),
        WriterSupport.entry(layer + ".SCB", DType.F32, n),
        WriterSupport.entry(layer + ".weight_format", DType.U8));
  }

  @Override
  public Optional<RowQuantizer> byRows(String layer, Tensor weight) {
    long k = weight.shape().get(1);
    return Optional.of(
        new SlicedRows(
            weight.shape().get(0),
            1,
            rows -> entries(layer, rows, k),
            (rows, backend, arena) -> quantize(layer, rows, backend, arena),
            arena -> List.of(WriterSupport.allocate(arena, entries(layer, 0, k).get(2)))));
  }

  private static float half(Encoding type, Tensor weight, long index) {
    return HalfFloat.round(Encoding.F16, Numbers.get(type, weight.data(), index));
  }

  @Override
  public Map<String, String> metadata(List<Written> layers, List<String> copied) {
    return Map.of("format", "pt"); // transformers refuses a file without it
  }
}
