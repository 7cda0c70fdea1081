package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.condition.EnabledIf;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Every kind of kernel once, on small odd shapes: what a checker of memory accesses and of races
 * gets through in a minute.
 */
@EnabledIf(value = "dev.gatun.kernel.Cuda#hasGpu", disabledReason = "no GPU")
class CudaSmallTest {
  @ParameterizedTest
  @EnumSource(names = {"F32", "BF16", "F8_E4M3", "I8", "U4", "NF4", "Q4_0", "Q4_K", "MXFP4"})
  void everyOperation(Encoding encoding) {
    check(encoding, encoding.isBlock() ? 2L * encoding.blockElements() : 75, List.of(1, 5, 70));
  }

  /** K that is divided among blocks, and rows for the kernels with the largest tiles. */
  @ParameterizedTest
  @EnumSource(names = {"F8_E4M3", "I8", "NF4", "Q4_0", "MXFP4"})
  void aLongerK(Encoding encoding) {
    check(encoding, 1056, List.of(1, 12, 40, 200));
  }

  private static void check(Encoding encoding, long k, List<Integer> counts) {
    long n = 37;
    Matrix m = Samples.encoding(encoding, n, k).matrix();
    float[] found = new float[Math.toIntExact(n * k)];
    float[] expected = new float[found.length];
    ReferenceBackend reference = new ReferenceBackend();
    reference.dequantize(m, 0, n, MemorySegment.ofArray(expected), Encoding.F32);
    try (CudaBackend backend = (CudaBackend) new CudaProvider().create(1)) {
      backend.dequantize(m, 0, n, MemorySegment.ofArray(found), Encoding.F32);
      assertThat(found).isEqualTo(expected);
      Matrix empty = m.withMemory(data -> MemorySegment.ofArray(new byte[(int) data.byteSize()]));
      if (backend.refuses(Operation.QUANTIZE, m, Optional.empty()).isEmpty()) {
        QuantizeRule rule = new QuantizeRule(Encoding.F32, false, 7, 0, -7, 7, false, 0);
        backend.quantize(empty, rule, MemorySegment.ofArray(expected), Encoding.F32);
      }
      try (PackedWeight packed = backend.pack(m)) {
        for (Compute compute : Compute.multiplies()) {
          if (backend.refuses(Operation.LINEAR, m, Optional.of(compute)).isPresent()) {
            continue;
          }
          for (int rows : counts) {
            MemorySegment x = Samples.x(rows, k, Encoding.BF16, 0);
            float[] y = new float[Math.toIntExact(rows * n)];
            MemorySegment out = MemorySegment.ofArray(y);
            backend.linear(
                packed,
                LinearCall.of(x, Encoding.BF16, k, rows, out, Encoding.F32, n).compute(compute));
            double sum = 0;
            double size = 0; // quantizing x may cost a part of every product
            for (int j = 0; j < k; j++) {
              double product = (double) Numbers.get(Encoding.BF16, x, j) * expected[j];
              sum += product;
              size += Math.abs(product);
            }
            assertThat(Math.abs(y[0] - sum)).as("%s %s", compute, rows).isLessThan(0.05 * size);
          }
        }
      }
    }
  }

  /** Every kernel for several weights at once, beside one weight after the other. */
  @ParameterizedTest
  @CsvSource({
    "NF4, BF16",
    "Q4_K, BF16",
    "I8, BF16",
    "NF4, F32",
    "I8, I8",
    "F8_E4M3, F8_ROW",
    "F8_E4M3, F8_BLOCK"
  })
  void severalExperts(Encoding encoding, Compute compute) {
    long n = 37;
    long k = encoding.isBlock() ? 2L * encoding.blockElements() : 75;
    Matrix m = Samples.encoding(encoding, n, k).matrix();
    try (CudaBackend backend = (CudaBackend) new CudaProvider().create(1);
        PackedWeight packed = backend.pack(m);
        CudaGroup group = backend.groupOf(List.of(expert(packed), expert(packed), expert(packed)));
        CudaStream stream = backend.stream()) {
      for (long[] offsets :
          List.of(
              new long[] {0, 2, 2, 20}, new long[] {0, 70, 75, 80}, new long[] {0, 9, 9, 700})) {
        long rows = offsets[3];
        MemorySegment x = Samples.x(rows, k, Encoding.BF16, 0);
        float[] expected = new float[Math.toIntExact(rows * n)];
        float[] found = new float[expected.length];
        backend.linear(
            packed,
            LinearCall.of(
                    x, Encoding.BF16, k, rows, MemorySegment.ofArray(expected), Encoding.F32, n)
                .compute(compute));
        try (CudaMemory deviceX = backend.upload(x);
            CudaMemory deviceOffsets = backend.upload(MemorySegment.ofArray(offsets));
            CudaMemory y = backend.allocate(4L * rows * n)) {
          group.linear(
              stream,
              LinearCall.of(deviceX, Encoding.BF16, k, rows, y, Encoding.F32, n).compute(compute),
              deviceOffsets);
          stream.download(y, MemorySegment.ofArray(found));
        }
        double size = 0;
        double error = 0;
        for (int i = 0; i < expected.length; i++) {
          size += Math.abs(expected[i]);
          error += Math.abs(found[i] - expected[i]);
        }
        assertThat(error).as("%s rows", rows).isLessThan(0.01 * size);
      }
    }
  }

  private static CudaGroup.Expert expert(PackedWeight packed) {
    return new CudaGroup.Expert(packed, null, null);
  }
}
