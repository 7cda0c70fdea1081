package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.Epilogue.Activation;
import dev.gatun.Epilogue.Combine;
import dev.gatun.Rounding;
import dev.gatun.kernel.codec.Activations;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.BitsAndBytesInt8Layout;
import dev.gatun.layout.LlmInt8;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIf;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Products on a GPU that round x with a scale from the file, or take outliers apart. */
@EnabledIf(value = "dev.gatun.kernel.Cuda#hasGpu", disabledReason = "no GPU")
class CudaActivationsTest {
  private static final int N = 203;
  private static final int K = 200;
  private static final Backend REFERENCE = new ReferenceBackend();

  private final CudaBackend backend = new CudaBackend(0);
  private final Arena arena = Arena.ofShared();
  private final SplittableRandom random = new SplittableRandom(5);

  @AfterEach
  void close() {
    backend.close();
    arena.close();
  }

  private MemorySegment numbers(Encoding type, long count, double size) {
    MemorySegment data = arena.allocate(count * type.bits() / 8, 64);
    for (long i = 0; i < count; i++) {
      Numbers.put(type, data, i, random.nextDouble(-size, size));
    }
    return data;
  }

  private static double distance(MemorySegment found, MemorySegment expected, Encoding type) {
    double error = 0;
    double norm = 0;
    for (long i = 0; i < expected.byteSize() / (type.bits() / 8); i++) {
      double e = Numbers.get(type, expected, i);
      double f = Numbers.get(type, found, i);
      if (Double.isNaN(e)) {
        assertThat(f).as("number %d", i).isNaN();
      } else {
        error += (f - e) * (f - e);
        norm += e * e;
      }
    }
    return Math.sqrt(error / norm);
  }

  /** What is asked for, on the host's memory and on the device's: the same bytes. */
  private MemorySegment run(
      PackedWeight packed,
      LinearCall<MemorySegment> call,
      @Nullable MemorySegment bias,
      @Nullable MemorySegment multiplier) {
    int size = call.yType().bits() / 8;
    MemorySegment y = arena.allocate(call.m() * packed.n() * size, 64).fill((byte) 0x7F);
    call.bias(bias).multiplier(multiplier);
    call.operands(call.x(), call.xType(), call.ldx(), call.m(), y, call.yType(), packed.n());
    backend.linear(packed, call);
    MemorySegment again = arena.allocate(y.byteSize(), 64);
    try (CudaStream stream = backend.stream();
        CudaMemory onX = backend.upload(call.x());
        CudaMemory onY = backend.allocate(y.byteSize());
        CudaMemory onBias = backend.upload(bias == null ? y : bias);
        CudaMemory onMultiplier = backend.upload(multiplier == null ? y : multiplier);
        CudaMemory onOther = backend.upload(call.other() == null ? y : call.other())) {
      stream.fill(onY, (byte) 0x7F);
      backend.linear(
          stream,
          packed,
          LinearCall.of(onX, call.xType(), call.ldx(), call.m(), onY, call.yType(), packed.n())
              .bias(bias == null ? null : onBias)
              .multiplier(multiplier == null ? null : onMultiplier)
              .epilogue(call.epilogue(), call.other() == null ? null : onOther, call.ldOther())
              .compute(call.compute()));
      stream.download(onY, again);
    }
    assertThat(again.mismatch(y)).isEqualTo(-1);
    return y;
  }

  static Stream<Arguments> rounded() {
    List<Rounding> roundings =
        List.of(
            new Rounding(Encoding.I8, 0.013f, false),
            new Rounding(Encoding.I8, 0.021f, true),
            new Rounding(Encoding.F8_E4M3, 0.007f, true),
            new Rounding(Encoding.F8_E5M2, 0.4f, false));
    return Stream.of(Encoding.I8, Encoding.F8_E4M3, Encoding.NF4, Encoding.I4, Encoding.BF16)
        .flatMap(
            weight ->
                roundings.stream()
                    .flatMap(r -> Stream.of(1, 7, 17, 130).map(m -> Arguments.of(weight, r, m))));
  }

  @ParameterizedTest(name = "{0} {1} M = {2}")
  @MethodSource("rounded")
  void roundsXAsTheDefinition(Encoding encoding, Rounding rounding, int m) {
    TestMatrices matrices = new TestMatrices(arena, 7, true);
    Matrix weight =
        encoding.isPlain()
            ? Matrix.builder(N, K, encoding, numbers(encoding, (long) N * K, 1)).build()
            : matrices.scaled(
                encoding, N, K, CodeOrder.LOW_FIRST, Granularity.perChannel(K), Encoding.F32);
    boolean integers =
        rounding.encoding() == Encoding.I8
            && backend.refuses(Operation.LINEAR, weight, Optional.of(Compute.I8)).isEmpty();
    Encoding type = m == 7 ? Encoding.BF16 : m == 17 ? Encoding.F16 : Encoding.F32;
    MemorySegment x = numbers(type, (long) m * K, 3); // some beyond the largest code
    if (m > 1) {
      Numbers.put(type, x, K + 3, Float.NaN);
      Numbers.put(type, x, 5, Float.POSITIVE_INFINITY);
    }
    MemorySegment bias = numbers(Encoding.F32, N, 1);
    MemorySegment multiplier = numbers(Encoding.F32, K, 2);
    Epilogue epilogue = new Epilogue(Activation.SILU, Combine.ADD);
    MemorySegment other = numbers(Encoding.F32, (long) m * N, 1);

    MemorySegment expected = arena.allocate(4L * m * N, 64);
    MemorySegment floats = arena.allocate(4L * m * K, 64);
    REFERENCE.round(rounding, x, type, K, m, K, multiplier, floats, Encoding.F32, K, 1);
    try (PackedWeight packed = REFERENCE.pack(weight)) {
      REFERENCE.linear(
          packed,
          LinearCall.of(floats, Encoding.F32, K, m, expected, Encoding.F32, N)
              .bias(bias)
              .epilogue(epilogue, other, N)
              .compute(integers ? Compute.I8 : Compute.F32)
              .rounded(integers ? rounding.scale() : 0));
    }
    try (PackedWeight packed = backend.pack(weight, CudaActivations.rounded(rounding, null))) {
      Compute compute = rounding.encoding() == Encoding.I8 ? Compute.I8_STATIC : Compute.F8;
      MemorySegment found =
          run(
              packed,
              LinearCall.of(x, type, K, m, expected, Encoding.F32, N)
                  .epilogue(epilogue, other, N)
                  .compute(compute),
              bias,
              multiplier);
      boolean bytes = rounding.encoding() == Encoding.F8_E4M3 && encoding == Encoding.F8_E4M3;
      assertThat(distance(found, expected, Encoding.F32))
          .isLessThan(bytes && m > 16 ? 5e-4 : 1e-6 * Math.sqrt(K));
      assertThat(packed.kernel(compute, m)).endsWith("+static");
    }
  }

  /** A sum that falls between two codes may go either way, so one step is allowed. */
  @ParameterizedTest
  @ValueSource(ints = {1, 33})
  void roundsYBeforeTheEpilogue(int m) {
    Matrix weight =
        new TestMatrices(arena, 9, true)
            .scaled(
                Encoding.I8, N, K, CodeOrder.LOW_FIRST, Granularity.perChannel(K), Encoding.F32);
    Rounding input = new Rounding(Encoding.I8, 0.02f, false);
    Rounding output = new Rounding(Encoding.I8, 40f, false);
    MemorySegment x = numbers(Encoding.F32, (long) m * K, 1);
    MemorySegment other = numbers(Encoding.F32, (long) m * N, 1);
    Epilogue epilogue = new Epilogue(Activation.NONE, Combine.ADD);
    MemorySegment floats = arena.allocate(4L * m * K, 64);
    MemorySegment expected = arena.allocate(4L * m * N, 64);
    REFERENCE.round(input, x, Encoding.F32, K, m, K, null, floats, Encoding.F32, K, 1);
    try (PackedWeight packed = REFERENCE.pack(weight)) {
      REFERENCE.linear(
          packed,
          LinearCall.of(floats, Encoding.F32, K, m, expected, Encoding.F32, N)
              .compute(Compute.I8)
              .rounded(input.scale()));
    }
    REFERENCE.round(output, expected, Encoding.F32, N, m, N, null, expected, Encoding.F32, N, 1);
    Activations.apply(epilogue, expected, N, m, N, expected, Encoding.F32, N, other, N);
    try (PackedWeight packed = backend.pack(weight, CudaActivations.rounded(input, output))) {
      MemorySegment found =
          run(
              packed,
              LinearCall.of(x, Encoding.F32, K, m, expected, Encoding.F32, N)
                  .epilogue(epilogue, other, N)
                  .compute(Compute.I8_STATIC),
              null,
              null);
      int different = 0;
      for (long i = 0; i < (long) m * N; i++) {
        float e = Numbers.get(Encoding.F32, expected, i);
        float f = Numbers.get(Encoding.F32, found, i);
        assertThat(Math.abs(e - f)).isLessThan(1.001f * output.scale());
        different += Math.abs(e - f) > 1e-3 ? 1 : 0;
      }
      assertThat(different).isLessThanOrEqualTo(m * N / 500);
    }
  }

  @ParameterizedTest
  @ValueSource(ints = {1, 5, 16, 17, 64, 130, 1030})
  void takesOutliersApartAsTheDefinition(int m) {
    MemorySegment codes =
        new TestMatrices(arena, 11, true).numbers(Encoding.I8, (long) N * K, true);
    Matrix weight = new BitsAndBytesInt8Layout().matrix(N, K, codes, numbers(Encoding.F32, N, 1));
    for (int outliers : new int[] {0, 1, 15, 40, K}) {
      Encoding type = m % 2 == 0 ? Encoding.F16 : Encoding.F32;
      MemorySegment x = numbers(type, (long) m * K, 5.9);
      for (int c = 0; c < outliers; c++) {
        long row = random.nextInt(m);
        Numbers.put(type, x, row * K + (c * 37L + 5) % K, random.nextBoolean() ? 6 : -57.3);
      }
      if (m > 5) {
        Numbers.put(type, x, 2 * K + 1, Float.NaN);
      }
      MemorySegment bias = numbers(Encoding.F32, N, 1);
      MemorySegment multiplier = outliers == 15 ? numbers(Encoding.F32, K, 1.5) : null;
      Epilogue epilogue =
          outliers == 15 ? new Epilogue(Activation.GELU, Combine.MULTIPLY) : Epilogue.NONE;
      MemorySegment other = outliers == 15 ? numbers(Encoding.F32, (long) m * N, 1) : null;
      MemorySegment expected = arena.allocate(4L * m * N, 64);
      Backend definition = LlmInt8.around(REFERENCE);
      try (PackedWeight packed = definition.pack(weight);
          PackedWeight onGpu = LlmInt8.around(backend).pack(weight)) {
        definition.linear(
            packed,
            LinearCall.of(x, type, K, m, expected, Encoding.F32, N)
                .bias(bias)
                .multiplier(multiplier)
                .epilogue(epilogue, other, N)
                .compute(Compute.I8));
        MemorySegment found =
            run(
                onGpu,
                LinearCall.of(x, type, K, m, expected, Encoding.F32, N)
                    .epilogue(epilogue, other, N)
                    .compute(Compute.I8),
                bias,
                multiplier);
        assertThat(distance(found, expected, Encoding.F32))
            .as("%d outliers", outliers)
            .isLessThan(2e-6 * Math.sqrt(K));
        assertThat(onGpu.kernel(Compute.I8, m)).endsWith("+outliers");
      }
    }
  }

  @Test
  void otherComputeTypesTakeNothingApart() {
    MemorySegment codes =
        new TestMatrices(arena, 11, true).numbers(Encoding.I8, (long) N * K, true);
    Matrix weight = new BitsAndBytesInt8Layout().matrix(N, K, codes, numbers(Encoding.F32, N, 1));
    try (PackedWeight packed = LlmInt8.around(backend).pack(weight)) {
      assertThat(packed.kernel(Compute.BF16, 3)).doesNotContain("+");
    }
  }
}
