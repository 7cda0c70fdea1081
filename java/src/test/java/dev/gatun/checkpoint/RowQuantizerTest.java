package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.ReferenceBackend;
import dev.gatun.kernel.Rounding;
import dev.gatun.kernel.ScaleMethod;
import dev.gatun.kernel.Scaling;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Weights that are quantized some rows at a time have the bytes of those quantized whole. */
class RowQuantizerTest {
  private static final long[][] SHAPES = {
    {1, 64}, {3, 1}, {67, 33}, {48, 32}, {130, 256}, {5, 512}, {300, 72}
  };
  private static final int[] STEPS_AT_ONCE = {1, 3, 64};
  private static final int SEE_ONCE = 7;

  private final Backend backend = new ReferenceBackend();

  static Stream<String> formats() {
    return Checkpoint.formats().stream()
        .flatMap(format -> format.writes().keySet().stream())
        .filter(name -> writer(name).byRows("a", weight(1, 512, DType.F32)).isPresent());
  }

  private static LayerWriter writer(String format) {
    return Checkpoint.formats().stream()
        .filter(family -> family.writes().containsKey(format))
        .findFirst()
        .orElseThrow()
        .writer(format);
  }

  /** Numbers with zeros, a row of zeros and subnormal numbers among them. */
  private static Tensor weight(long n, long k, DType dtype) {
    Random random = new Random(n * 31 + k);
    Encoding type = dtype.encoding().orElseThrow();
    byte[] bytes = new byte[Math.toIntExact(n * k * type.bits() / 8)];
    MemorySegment data = MemorySegment.ofArray(bytes);
    for (long i = 0; i < n * k; i++) {
      float w = (float) random.nextGaussian() * (i / k == 4 ? 0 : i / k % 3 + 1);
      Numbers.put(type, data, i, i % 41 == 5 ? 1e-39f : w);
    }
    return new Tensor("a.weight", dtype, List.of(n, k), data);
  }

  @ParameterizedTest
  @MethodSource("formats")
  void piecesAreTheWhole(String format) {
    LayerWriter writer = writer(format);
    int cases = 0;
    for (DType dtype : List.of(DType.F32, DType.F16, DType.BF16)) {
      for (long[] shape : SHAPES) {
        Tensor weight = weight(shape[0], shape[1], dtype);
        if (!writer.accepts(weight)) {
          continue;
        }
        for (int steps : STEPS_AT_ONCE) {
          try (Arena arena = Arena.ofConfined()) {
            Map<String, byte[]> expected = new LinkedHashMap<>();
            List<Tensor> whole = writer.quantize("a", weight, backend, arena).tensors();
            whole.forEach(t -> expected.put(t.name(), t.data().toArray(ValueLayout.JAVA_BYTE)));
            RowQuantizer rows = writer.byRows("a", weight).orElseThrow();
            assertThat(rows.entries())
                .containsExactlyInAnyOrderElementsOf(
                    whole.stream().map(SafetensorsWriter.Entry::of).toList());
            Map<String, byte[]> found = inPieces(rows, weight, Scaling.DEFAULT, steps, arena);
            assertThat(found.keySet()).isEqualTo(expected.keySet());
            expected.forEach(
                (name, bytes) ->
                    assertThat(found.get(name))
                        .as(format + " " + weight.dtype() + " " + weight.shape() + " " + name)
                        .isEqualTo(bytes));
            cases++;
          }
        }
      }
    }
    assertThat(cases).isPositive();
  }

  static Stream<Arguments> fitted() {
    List<Scaling> scalings =
        List.of(
            Scaling.of(ScaleMethod.MSE), new Scaling(ScaleMethod.ABSMAX, Rounding.STOCHASTIC, 11));
    return formats()
        .filter(name -> writer(name).byRows("a", weight(1, 512, DType.F32)).get().isFittable())
        .flatMap(
            name ->
                scalings.stream()
                    .filter(scaling -> writer(name).refuses(scaling).isEmpty())
                    .map(scaling -> Arguments.of(name, scaling)));
  }

  /** Scales that are searched for and codes that are drawn are those of the weight as a whole. */
  @ParameterizedTest
  @MethodSource("fitted")
  void fittedPiecesAreTheWhole(String format, Scaling scaling) {
    LayerWriter writer = writer(format);
    Tensor weight = weight(131, 128, DType.F32);
    try (Arena arena = Arena.ofConfined()) {
      List<Tensor> whole = writer.quantize("a", weight, scaling, backend, arena).tensors();
      RowQuantizer rows = writer.byRows("a", weight).orElseThrow();
      Map<String, byte[]> found = inPieces(rows, weight, scaling.forLayer("a"), 1, arena);
      for (Tensor tensor : whole) {
        assertThat(found.get(tensor.name()))
            .as(tensor.name())
            .isEqualTo(tensor.data().toArray(ValueLayout.JAVA_BYTE));
      }
    }
  }

  @ParameterizedTest
  @CsvSource({"qint8, 8.0625", "nf4, 4.5", "float8_e4m3fn, 8", "gguf-q4_0, 4.5", "original, 32"})
  void targetBitsAreThoseOfTheFile(String format, double bits) {
    // Codebooks, marks and scales of the whole weight come on top, whatever its size.
    assertThat(writer(format).targetBits(weight(256, 512, DType.F32))).isBetween(bits, bits + 0.02);
  }

  private Map<String, byte[]> inPieces(
      RowQuantizer rows, Tensor weight, Scaling scaling, int steps, Arena arena) {
    Map<String, byte[]> tensors = new LinkedHashMap<>();
    for (SafetensorsWriter.Entry entry : rows.entries()) {
      byte[] bytes = new byte[Math.toIntExact(entry.byteSize())];
      Arrays.fill(bytes, (byte) 0x55); // every byte is written
      tensors.put(entry.name(), bytes);
    }
    long n = weight.shape().get(0);
    if (rows.looksFirst()) {
      for (long first = 0; first < n; first += SEE_ONCE) {
        rows.look(slice(weight, first, Math.min(SEE_ONCE, n - first)));
      }
    }
    long step = rows.step() * steps;
    for (long first = (n - 1) / step * step; first >= 0; first -= step) { // in any order
      Tensor slice = slice(weight, first, Math.min(step, n - first));
      for (RowQuantizer.Part part : rows.quantize(first, slice, scaling, backend, arena).parts()) {
        put(tensors, part.tensor(), part.offset(), part.bytes());
      }
    }
    rows.rest(backend, arena).forEach(tensor -> put(tensors, tensor.name(), 0, tensor.data()));
    return tensors;
  }

  private static void put(
      Map<String, byte[]> tensors, String name, long offset, MemorySegment bytes) {
    MemorySegment.ofArray(tensors.getOrDefault(name, new byte[0]))
        .asSlice(offset, bytes.byteSize())
        .copyFrom(bytes);
  }

  private static Tensor slice(Tensor weight, long first, long count) {
    long bytesPerRow = weight.data().byteSize() / weight.shape().get(0);
    return new Tensor(
        weight.name(),
        weight.dtype(),
        List.of(count, weight.shape().get(1)),
        weight.data().asSlice(first * bytesPerRow, count * bytesPerRow));
  }
}
