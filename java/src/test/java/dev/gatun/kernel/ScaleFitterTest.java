package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.CheckpointFormat;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Properties of every way to choose scales and codes, in every format that takes it. */
class ScaleFitterTest {
  private static final ReferenceBackend BACKEND = new ReferenceBackend();

  private static LayerWriter writer(String format) {
    return Checkpoint.formats().stream()
        .filter(f -> f.writes().containsKey(format))
        .findFirst()
        .orElseThrow()
        .writer(format);
  }

  static Stream<String> formats() {
    return Checkpoint.formats().stream()
        .map(CheckpointFormat::writes)
        .flatMap(writes -> writes.keySet().stream());
  }

  /** Normal numbers with a few far out, a row of zeros and one of tiny numbers. */
  private static Tensor weight(Arena arena, DType dtype, long n, long k, long seed) {
    Encoding type = dtype.encoding().orElseThrow();
    MemorySegment data = arena.allocate(n * k * type.bits() / 8, 64);
    Random random = new Random(seed);
    for (long i = 0; i < n * k; i++) {
      double v = random.nextGaussian() * (random.nextInt(200) == 0 ? 0.3 : 0.02);
      long row = i / k;
      Numbers.put(type, data, i, (float) (row == 1 ? 0 : row == 2 ? v * 1e-20 : v));
    }
    return new Tensor("l.weight", dtype, List.of(n, k), data);
  }

  private static double squaredError(Matrix m, Tensor weight) {
    Encoding type = weight.dtype().encoding().orElseThrow();
    float[] row = new float[(int) m.k()];
    double sum = 0;
    for (long r = 0; r < m.n(); r++) {
      MatrixValues.row(m, r, 0, row.length, row);
      for (int c = 0; c < row.length; c++) {
        double d = row[c] - (double) Numbers.get(type, weight.data(), r * m.k() + c);
        sum += d * d;
      }
    }
    return sum;
  }

  private static double error(String format, Tensor weight, Scaling scaling, Arena arena) {
    return squaredError(
        writer(format).quantize("l", weight, scaling, BACKEND, arena).matrix(), weight);
  }

  private static boolean fits(String format, ScaleMethod method) {
    return writer(format).refuses(Scaling.of(method)).isEmpty();
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("formats")
  void mseIsNeverWorseThanAbsmax(String format) {
    for (DType dtype : List.of(DType.F32, DType.BF16, DType.F16)) {
      for (long[] shape : List.of(new long[] {16, 256}, new long[] {3, 65}, new long[] {1, 1})) {
        try (Arena arena = Arena.ofShared()) {
          Tensor weight = weight(arena, dtype, shape[0], shape[1], shape[1]);
          if (!fits(format, ScaleMethod.MSE) || !writer(format).accepts(weight)) {
            continue;
          }
          double absmax = error(format, weight, Scaling.DEFAULT, arena);
          if (!Double.isFinite(absmax)) {
            continue; // the library's own rule ends in NaN: a scale too small for F16
          }
          double mse = error(format, weight, Scaling.of(ScaleMethod.MSE), arena);
          assertThat(mse).as("%s %s %s", format, dtype, weight.shape()).isLessThanOrEqualTo(absmax);
        }
      }
    }
  }

  @ParameterizedTest(name = "{0}")
  @ValueSource(strings = {"qint2", "qint4", "nf4", "fp4", "comfy-nvfp4", "torchao-int4wo", "qint8"})
  void mseIsMuchBetterWhereCodesAreFew(String format) {
    try (Arena arena = Arena.ofShared()) {
      Tensor weight = weight(arena, DType.F32, 32, 1024, 5);
      double absmax = error(format, weight, Scaling.DEFAULT, arena);
      double mse = error(format, weight, Scaling.of(ScaleMethod.MSE), arena);
      assertThat(mse).isLessThan(absmax * 0.995);
    }
  }

  @ParameterizedTest(name = "{0}")
  @MethodSource("formats")
  void whatAFormatDoesNotDoItRefusesAndSaysWhy(String format) {
    LayerWriter writer = writer(format);
    assertThat(writer.refuses(Scaling.DEFAULT)).isEmpty();
    for (String method : List.of("percentile=99", "mse", "hqq")) {
      Scaling scaling = Scaling.of(ScaleMethod.of(method));
      try (Arena arena = Arena.ofShared()) {
        Tensor weight = weight(arena, DType.F32, 16, 256, 5);
        if (writer.refuses(scaling).isEmpty()) {
          assertThat(writer.quantize("l", weight, scaling, BACKEND, arena).tensors()).isNotEmpty();
        } else {
          assertThat(writer.refuses(scaling).get()).isNotBlank();
        }
      }
    }
    boolean affine = format.matches("qint[24]|torchao-int4wo(-g[0-9]+)?");
    assertThat(fits(format, ScaleMethod.HQQ)).isEqualTo(affine);
  }

  @ParameterizedTest(name = "{0}")
  @ValueSource(
      strings = {
        "qint2",
        "qint4",
        "qint8",
        "nf4",
        "nf4-nested",
        "fp4",
        "float8_e4m3fn",
        "qfloat8_e5m2",
        "comfy-int8",
        "comfy-nvfp4",
        "comfy-mxfp8",
        "torchao-int4wo",
        "torchao-int8wo",
        "llm-int8"
      })
  void stochasticRoundingIsUnbiasedAndTakesTheNeighboursOnly(String format) {
    int seeds = 400;
    try (Arena arena = Arena.ofShared()) {
      Tensor weight = weight(arena, DType.F32, 4, 256, 9);
      int count = (int) weight.elements();
      double[] sum = new double[count];
      float[] low = new float[count];
      float[] high = new float[count];
      Arrays.fill(low, Float.POSITIVE_INFINITY);
      Arrays.fill(high, Float.NEGATIVE_INFINITY);
      float[] row = new float[256];
      for (int seed = 0; seed < seeds; seed++) {
        Scaling scaling = new Scaling(ScaleMethod.ABSMAX, Rounding.STOCHASTIC, seed);
        try (Arena one = Arena.ofShared()) {
          Matrix m = writer(format).quantize("l", weight, scaling, BACKEND, one).matrix();
          for (int r = 0; r < 4; r++) {
            MatrixValues.row(m, r, 0, 256, row);
            for (int c = 0; c < 256; c++) {
              int i = r * 256 + c;
              sum[i] += row[c];
              low[i] = Math.min(low[i], row[c]);
              high[i] = Math.max(high[i], row[c]);
            }
          }
        }
      }
      double bias = 0;
      double widths = 0;
      for (int i = 0; i < count; i++) {
        double w = Numbers.get(Encoding.F32, weight.data(), i);
        double width = high[i] - (double) low[i];
        boolean inside = w > low[i] && w < high[i];
        if (inside) {
          assertThat(sum[i] / seeds).as("mean of %s", w).isCloseTo(w, within(width * 0.15));
          bias += sum[i] / seeds - w;
          widths += width * width / 4 / seeds;
        }
      }
      assertThat(widths).isPositive();
      assertThat(Math.abs(bias)).isLessThan(5 * Math.sqrt(widths)); // five standard deviations
    }
  }

  @Test
  void theSameSeedGivesTheSameBytesAndAnotherSeedOrLayerOthers() {
    try (Arena arena = Arena.ofShared()) {
      Tensor weight = weight(arena, DType.BF16, 8, 512, 3);
      LayerWriter writer = writer("qint8");
      Scaling seven = new Scaling(ScaleMethod.ABSMAX, Rounding.STOCHASTIC, 7);
      Scaling eight = new Scaling(ScaleMethod.ABSMAX, Rounding.STOCHASTIC, 8);
      MemorySegment a = codes(writer.quantize("l", weight, seven, BACKEND, arena));
      MemorySegment b = codes(writer.quantize("l", weight, seven, BACKEND, arena));
      MemorySegment c = codes(writer.quantize("l", weight, eight, BACKEND, arena));
      MemorySegment d = codes(writer.quantize("m", weight, seven, BACKEND, arena));
      assertThat(a.mismatch(b)).isEqualTo(-1);
      assertThat(a.mismatch(c)).isNotEqualTo(-1);
      assertThat(a.mismatch(d)).isNotEqualTo(-1);
    }
  }

  private static MemorySegment codes(LayerWriter.Quantized quantized) {
    return quantized.tensors().getFirst().data();
  }

  @Test
  void percentilesAreInterpolatedAndClampWhatLiesAbove() {
    try (Arena arena = Arena.ofShared()) {
      MemorySegment data = arena.allocate(5 * Float.BYTES, 64);
      float[] numbers = {1, -2, 3, -4, 100};
      MemorySegment.copy(MemorySegment.ofArray(numbers), 0, data, 0, 20);
      Tensor weight = new Tensor("l.weight", DType.F32, List.of(1L, 5L), data);
      Matrix m =
          writer("qint8")
              .quantize("l", weight, Scaling.of(ScaleMethod.percentile(75)), BACKEND, arena)
              .matrix();
      // magnitudes 1 2 3 4 100: the place 0.75 · 4 = 3 is the 4
      assertThat(MatrixValues.storedScale(m, 0, 0)).isCloseTo(4f / 127, within(1e-7f));
      assertThat(MatrixValues.weight(m, 0, 4)).isCloseTo(4f, within(1e-5f));
      Matrix between =
          writer("qint8")
              .quantize("l", weight, Scaling.of(ScaleMethod.percentile(62.5)), BACKEND, arena)
              .matrix();
      assertThat(MatrixValues.storedScale(between, 0, 0)).isCloseTo(3.5f / 127, within(1e-7f));
    }
  }

  @ParameterizedTest(name = "{0}")
  @CsvSource({"qint8", "qint4", "nf4", "float8_e4m3fn", "torchao-int4wo"})
  void theHundredthPercentileIsAbsmax(String format) {
    try (Arena arena = Arena.ofShared()) {
      Tensor weight = weight(arena, DType.BF16, 8, 256, 3);
      Scaling all = Scaling.of(ScaleMethod.percentile(100));
      List<Tensor> expected = writer(format).quantize("l", weight, BACKEND, arena).tensors();
      List<Tensor> actual = writer(format).quantize("l", weight, all, BACKEND, arena).tensors();
      for (int i = 0; i < expected.size(); i++) {
        assertThat(actual.get(i).data().mismatch(expected.get(i).data())).isEqualTo(-1);
      }
    }
  }

  @Test
  void percentilesOfLargeBlocksAreThoseOfSortedNumbers() {
    try (Arena arena = Arena.ofShared()) {
      long n = 300;
      long k = 701; // more than a piece
      Tensor weight = weight(arena, DType.F32, n, k, 11);
      float[] sorted = new float[(int) (n * k)];
      float[] magnitudes = new float[sorted.length];
      for (int i = 0; i < sorted.length; i++) {
        sorted[i] = Numbers.get(Encoding.F32, weight.data(), i);
        magnitudes[i] = Math.abs(sorted[i]);
      }
      Arrays.sort(sorted);
      Arrays.sort(magnitudes);
      Matrix m = writer("comfy-int8").quantize("l", weight, BACKEND, arena).matrix();
      ScaleBlock.forEach(
          m,
          weight.data(),
          Encoding.F32,
          block -> {
            for (double p : List.of(0.0, 3.3, 50.0, 99.9, 100.0)) {
              assertThat(block.percentile(p, false)).isEqualTo(interpolated(sorted, p));
              assertThat(block.percentile(p, true)).isEqualTo(interpolated(magnitudes, p));
            }
          });
    }
  }

  private static double interpolated(float[] sorted, double percentile) {
    double place = percentile / 100 * (sorted.length - 1);
    int below = (int) place;
    int above = Math.min(sorted.length - 1, below + 1);
    return sorted[below] + (place - below) * ((double) sorted[above] - sorted[below]);
  }

  @Test
  void hqqLowersTheMeanErrorOfTorchaosTiles() {
    try (Arena arena = Arena.ofShared()) {
      Tensor weight = weight(arena, DType.BF16, 16, 512, 21);
      double before = meanError("torchao-int4wo", weight, Scaling.DEFAULT, arena);
      double after = meanError("torchao-int4wo", weight, Scaling.of(ScaleMethod.HQQ), arena);
      assertThat(after).isLessThan(before);
    }
  }

  private static double meanError(String format, Tensor weight, Scaling scaling, Arena arena) {
    Matrix m = writer(format).quantize("l", weight, scaling, BACKEND, arena).matrix();
    Encoding type = weight.dtype().encoding().orElseThrow();
    double sum = 0;
    for (long i = 0; i < weight.elements(); i++) {
      sum +=
          Math.abs(
              MatrixValues.weight(m, i / m.k(), i % m.k())
                  - (double) Numbers.get(type, weight.data(), i));
    }
    return sum;
  }

  @ParameterizedTest(name = "{0}")
  @ValueSource(
      strings = {"minmax", "percentile", "percentile=x", "percentile=50", "percentile=101"})
  void refusesMethodsThatThereAreNot(String name) {
    assertThatThrownBy(() -> ScaleMethod.of(name))
        .isInstanceOf(GatunException.class)
        .hasMessageStartingWith("scale: found");
  }
}
