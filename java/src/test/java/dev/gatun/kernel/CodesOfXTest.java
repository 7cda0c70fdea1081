package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.withinPercentage;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.kernel.codec.Fp8;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** Products of codes of x: quantized by the product, or before it. */
class CodesOfXTest {
  private static final int N = 40;
  private static final int K = 200;
  private static final int ROWS = 21;

  private final ReferenceBackend reference = new ReferenceBackend();

  /** x as codes and scales, of rows or of runs of 128. */
  private static Matrix quantized(
      Backend backend, MemorySegment x, Encoding encoding, Granularity granularity) {
    float largest = encoding == Encoding.I8 ? 127 : 448;
    int count = Math.toIntExact(granularity.index(ROWS - 1, K - 1, K) + 1);
    Matrix m =
        Matrix.builder(ROWS, K, encoding, MemorySegment.ofArray(new byte[ROWS * K]))
            .granularity(granularity)
            .scales(new Matrix.Values(Encoding.F32, MemorySegment.ofArray(new float[count])))
            .build();
    QuantizeRule rule =
        new QuantizeRule(Encoding.F32, false, largest, 0, -largest, largest, false, 0);
    backend.quantize(m, rule, x, Encoding.F32);
    return m;
  }

  private static LinearCall<MemorySegment> call(
      MemorySegment x, Encoding type, float[] y, Compute compute) {
    MemorySegment out = MemorySegment.ofArray(y);
    return LinearCall.of(x, type, K, ROWS, out, Encoding.F32, N).compute(compute);
  }

  @TestFactory
  List<DynamicTest> codesThatWereMadeBeforeGiveTheSame() {
    List<DynamicTest> tests = new ArrayList<>();
    for (Compute compute : List.of(Compute.I8, Compute.F8_ROW, Compute.F8_BLOCK)) {
      tests.add(
          DynamicTest.dynamicTest("reference " + compute, () -> assertSame(reference, compute)));
      if (Cuda.hasGpu()) {
        tests.add(DynamicTest.dynamicTest("cuda " + compute, () -> assertSameOnGpu(compute)));
      }
    }
    return tests;
  }

  private void assertSameOnGpu(Compute compute) {
    try (CudaBackend cuda = (CudaBackend) new CudaProvider().create(1)) {
      assertSame(cuda, compute);
    }
  }

  private void assertSame(Backend backend, Compute compute) {
    Encoding type = compute == Compute.I8 ? Encoding.I8 : Encoding.F8_E4M3;
    Granularity granularity =
        compute == Compute.F8_BLOCK ? Granularity.perGroup(K, 128) : Granularity.perChannel(K);
    MemorySegment x = Samples.x(ROWS, K, Encoding.F32, 0);
    Matrix codes = quantized(backend, x, type, granularity);
    MemorySegment scales = codes.scales().orElseThrow().data();
    Granularity.Tile tile = (Granularity.Tile) granularity;
    long columns = compute == Compute.F8_BLOCK ? tile.colStride() : 0;
    float[] found = new float[ROWS * N];
    float[] expected = new float[ROWS * N];
    Matrix weight = Samples.encoding(type, N, K).matrix();
    try (PackedWeight packed = backend.pack(weight)) {
      backend.linear(packed, call(x, Encoding.F32, expected, compute));
      backend.linear(
          packed,
          call(codes.codes(), type, found, compute).codes(scales, tile.rowStride(), columns));
    }
    assertThat(found).isEqualTo(expected);
  }

  /** Written out once more. */
  @Test
  void rowsAndBlocksOfFloatsAreQuantizedAsTheyShould() {
    Matrix weight = Samples.encoding(Encoding.F8_E5M2, N, K).matrix();
    MemorySegment x = Samples.x(ROWS, K, Encoding.F32, 0);
    for (Compute compute : List.of(Compute.F8_ROW, Compute.F8_BLOCK)) {
      int run = compute == Compute.F8_ROW ? K : 128;
      float[] found = new float[ROWS * N];
      try (PackedWeight packed = reference.pack(weight)) {
        reference.linear(packed, call(x, Encoding.F32, found, compute));
      }
      float[] w = new float[K];
      for (int i = 0; i < ROWS; i++) {
        MatrixValues.row(weight, i, 0, K, w);
        double sum = 0;
        for (int from = 0; from < K; from += run) {
          float largest = 0;
          for (int j = from; j < Math.min(K, from + run); j++) {
            largest = Math.max(largest, Math.abs(at(x, i * K + j)));
          }
          float scale = largest / 448f;
          for (int j = from; j < Math.min(K, from + run); j++) {
            int code = Fp8.encode(Encoding.F8_E4M3, at(x, i * K + j) / scale);
            sum += (double) Fp8.decode(Encoding.F8_E4M3, code) * scale * w[j];
          }
        }
        assertThat(found[i * N + i])
            .as("%s, row %d", compute, i)
            .isCloseTo((float) sum, withinPercentage(0.001));
      }
    }
  }

  private static float at(MemorySegment x, long index) {
    return x.getAtIndex(ValueLayout.JAVA_FLOAT_UNALIGNED, index);
  }

  @Test
  void codesThatDoNotFitAreRefused() {
    Matrix weight = Samples.encoding(Encoding.I8, N, K).matrix();
    MemorySegment codes = MemorySegment.ofArray(new byte[ROWS * K]);
    MemorySegment scales = MemorySegment.ofArray(new float[ROWS]);
    float[] y = new float[ROWS * N];
    try (PackedWeight packed = reference.pack(weight)) {
      assertThatThrownBy(
              () ->
                  reference.linear(
                      packed, call(codes, Encoding.I8, y, Compute.F8_ROW).codes(scales, 1, 0)))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found codes of x of I8 with compute F8_ROW");
      assertThatThrownBy(
              () ->
                  reference.linear(
                      packed, call(codes, Encoding.I8, y, Compute.I8).codes(scales, 1, 1)))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found scales of x 1 and 1 apart");
      assertThatThrownBy(
              () ->
                  reference.linear(
                      packed, call(codes, Encoding.I8, y, Compute.I8).codes(scales, 2, 0)))
          .isInstanceOf(IndexOutOfBoundsException.class)
          .hasMessageContaining("found scales of x of 84 bytes, expected 41 floats");
    }
  }

  @Test
  void backendsOfTheHostTakeNumbersOnly() {
    Native.require();
    Matrix weight = Samples.encoding(Encoding.I8, N, K).matrix();
    MemorySegment codes = MemorySegment.ofArray(new byte[ROWS * K]);
    MemorySegment scales = MemorySegment.ofArray(new float[ROWS]);
    float[] y = new float[ROWS * N];
    Backend backend = new NativeProvider().create(1);
    try (PackedWeight packed = backend.pack(weight)) {
      assertThatThrownBy(
              () ->
                  backend.linear(
                      packed, call(codes, Encoding.I8, y, Compute.I8).codes(scales, 1, 0)))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("native: found codes of x");
    }
  }
}
