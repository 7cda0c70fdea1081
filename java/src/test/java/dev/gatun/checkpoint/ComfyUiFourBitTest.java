package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.ReferenceBackend;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** ComfyUI's 4-bit layouts where no library's bytes can be compared with. */
class ComfyUiFourBitTest {
  private static Tensor weight(Arena arena, DType dtype, long n, long k, boolean heavyTails) {
    Tensor weight = WriterSupport.allocate(arena, "a.weight", dtype, n, k);
    Random random = new Random(n * k);
    for (long i = 0; i < n * k; i++) {
      double x = random.nextGaussian() / 10;
      // One number of 256 is so large that its whole rotated group follows it.
      Numbers.put(Parts.encoding(weight), weight.data(), i, heavyTails && i % 16 == 5 ? 9 * x : x);
    }
    return weight;
  }

  private static LayerWriter.Quantized quantize(String format, Tensor weight, Arena arena) {
    return new ComfyUiWriter(format).quantize("a", weight, new ReferenceBackend(), arena);
  }

  /** Half a step of the codes, and what the 16-bit scales, offsets and sums are rounded by. */
  @ParameterizedTest
  @EnumSource(
      value = DType.class,
      names = {"F32", "F16", "BF16"})
  void awqRoundsToTheNearestOfSixteenSteps(DType dtype) {
    try (Arena arena = Arena.ofConfined()) {
      Tensor weight = weight(arena, dtype, 3, 128, false);
      Matrix m = quantize("comfy-awq_w4a16", weight, arena).matrix();
      assertThat(m.result()).isEqualTo(dtype == DType.F16 ? Encoding.F16 : Encoding.BF16);
      double unit = dtype == DType.F16 ? 1.0 / 1024 : 1.0 / 128;
      float[] row = new float[128];
      for (long n = 0; n < 3; n++) {
        MatrixValues.row(m, n, 0, row.length, row);
        for (int k = 0; k < row.length; k++) {
          float w = Numbers.get(Parts.encoding(weight), weight.data(), n * row.length + k);
          double step = MatrixValues.scale(m, n, k);
          assertThat((double) Math.abs(row[k] - w))
              .isLessThanOrEqualTo(step / 2 + 8 * step * unit * 2);
        }
      }
    }
  }

  /** Constant groups are exact: their scale is 0. */
  @ParameterizedTest
  @CsvSource({"0", "-2.5"})
  void awqKeepsConstants(float value) {
    try (Arena arena = Arena.ofConfined()) {
      Tensor weight = WriterSupport.allocate(arena, "a.weight", DType.F32, 1L, 64L);
      for (int i = 0; i < 64; i++) {
        Numbers.put(Encoding.F32, weight.data(), i, value);
      }
      Matrix m = quantize("comfy-awq_w4a16", weight, arena).matrix();
      assertThat(MatrixValues.weight(m, 0, 33)).isEqualTo(value);
    }
  }

  /** The codebook is fitted to weights that the usual one does not suit, and is better then. */
  @ParameterizedTest
  @CsvSource({"false", "true"})
  void theCodebookSuitsTheWeight(boolean heavyTails) {
    try (Arena arena = Arena.ofConfined()) {
      Tensor weight = heavy(arena, heavyTails);
      LayerWriter.Quantized made = quantize("comfy-asym_w4a8_int8", weight, arena);
      Tensor codebook = made.tensors().get(3);
      assertThat(codebook.name()).isEqualTo("a.weight_codebook");
      float first = Numbers.get(Encoding.F32, codebook.data(), 0);
      assertThat(first == -0.980602f).isNotEqualTo(heavyTails);
      for (int i = 1; i < 16; i++) {
        assertThat(Numbers.get(Encoding.F32, codebook.data(), i))
            .isGreaterThanOrEqualTo(Numbers.get(Encoding.F32, codebook.data(), i - 1));
      }
      assertThat(error(made.matrix(), weight)).isLessThan(0.09);
    }
  }

  /** Rotated rows with few large numbers among small ones, or such without. */
  private static Tensor heavy(Arena arena, boolean heavyTails) {
    Tensor rotated = weight(arena, DType.F32, 4, 512, heavyTails);
    // The rotation is its own inverse: rotated once more, the numbers are these.
    WeightRows rows = new WeightRows(rotated, ComfyFormat.ROTATION);
    Tensor weight = WriterSupport.allocate(arena, "a.weight", DType.F32, 4L, 512L);
    for (long row = 0; row < 4; row++) {
      float[] values = rows.row(row, rows.room());
      for (int i = 0; i < values.length; i++) {
        Numbers.put(Encoding.F32, weight.data(), row * values.length + i, values[i]);
      }
    }
    return weight;
  }

  private static double error(Matrix m, Tensor weight) {
    double error = 0;
    double norm = 0;
    float[] row = new float[Math.toIntExact(m.k())];
    for (long n = 0; n < m.n(); n++) {
      MatrixValues.row(m, n, 0, row.length, row);
      for (int k = 0; k < row.length; k++) {
        double w = Numbers.get(Parts.encoding(weight), weight.data(), n * row.length + k);
        error += Math.pow(row[k] - w, 2);
        norm += w * w;
      }
    }
    return Math.sqrt(error / norm);
  }

  /** A rotation by 256 takes whole runs of 256 columns, groups of 64 whole groups. */
  @ParameterizedTest
  @CsvSource({
    "comfy-convrot_w4a4,256,255",
    "comfy-asym_w4a8_int8,512,384",
    "comfy-int8-convrot,256,64",
    "comfy-awq_w4a16,192,96"
  })
  void takesWholeGroupsOnly(String format, long good, long bad) {
    try (Arena arena = Arena.ofConfined()) {
      LayerWriter writer = new ComfyUiWriter(format);
      for (long k : List.of(good, bad)) {
        Tensor weight = WriterSupport.allocate(arena, "a.weight", DType.BF16, 2L, k);
        assertThat(writer.accepts(weight)).isEqualTo(k == good);
      }
    }
  }
}
