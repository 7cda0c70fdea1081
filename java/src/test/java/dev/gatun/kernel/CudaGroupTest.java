package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.Epilogue.Activation;
import dev.gatun.Epilogue.Combine;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.SplittableRandom;
import java.util.stream.LongStream;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledIf;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Rows of several experts in one call on a GPU, beside one expert after the other. */
@EnabledIf(value = "dev.gatun.kernel.Cuda#hasGpu", disabledReason = "no GPU")
class CudaGroupTest {
  private static final int N = 203;
  private static final int K = 256;
  private static final Backend REFERENCE = new ReferenceBackend();

  private final CudaBackend backend = new CudaBackend(0);
  private final Arena arena = Arena.ofShared();
  private final SplittableRandom random = new SplittableRandom(5);

  @AfterEach
  void close() {
    backend.close();
    arena.close();
  }

  private MemorySegment numbers(Encoding type, long count) {
    MemorySegment data = arena.allocate(Math.max(1, count) * type.bits() / 8, 64);
    for (long i = 0; i < count; i++) {
      Numbers.put(type, data, i, random.nextDouble(-1, 1));
    }
    return data;
  }

  private Matrix weight(Encoding encoding, Granularity granularity, int seed) {
    if (encoding.isBlock()) {
      return Samples.encoding(encoding, N, K).matrix();
    }
    return new TestMatrices(arena, seed, true)
        .scaled(encoding, N, K, CodeOrder.LOW_FIRST, granularity, Encoding.F32);
  }

  static Stream<Arguments> cases() {
    Granularity rows = Granularity.perChannel(K);
    Granularity wide = Granularity.perGroup(K, 64);
    Granularity narrow = Granularity.perGroup(K, 32);
    return Stream.of(
            Arguments.of(List.of(Encoding.NF4), wide, Compute.BF16),
            Arguments.of(List.of(Encoding.I4), narrow, Compute.BF16),
            Arguments.of(List.of(Encoding.MXFP4), rows, Compute.BF16),
            Arguments.of(List.of(Encoding.U4), wide, Compute.F32),
            Arguments.of(List.of(Encoding.I8), rows, Compute.BF16),
            Arguments.of(List.of(Encoding.I8), narrow, Compute.BF16),
            Arguments.of(List.of(Encoding.I8), rows, Compute.I8),
            Arguments.of(List.of(Encoding.F8_E4M3), rows, Compute.F8_ROW),
            Arguments.of(List.of(Encoding.F8_E4M3), rows, Compute.F8_BLOCK),
            Arguments.of(List.of(Encoding.Q4_K), rows, Compute.BF16),
            Arguments.of(List.of(Encoding.Q4_K), rows, Compute.F32),
            Arguments.of(List.of(Encoding.NF4, Encoding.I8), wide, Compute.BF16))
        .flatMap(
            a ->
                Stream.of(
                        new long[] {0, 0, 3, 3, 4, 20},
                        new long[] {0, 25, 25, 60},
                        new long[] {0, 70, 70, 71, 200, 201},
                        new long[] {0, 0, 0, 0, 0, 1},
                        new long[] {0, 400},
                        LongStream.rangeClosed(0, 150).map(e -> 2 * e).toArray())
                    .map(o -> Arguments.of(a.get()[0], a.get()[1], a.get()[2], o)));
  }

  @ParameterizedTest(name = "{0} {1} {2} {3}")
  @MethodSource("cases")
  void everyRowMeetsItsExpert(
      List<Encoding> encodings, Granularity granularity, Compute compute, long[] offsets) {
    int count = offsets.length - 1;
    int m = (int) offsets[count];
    List<PackedGroup.Expert> onHost = new ArrayList<>();
    List<CudaGroup.Expert> onGpu = new ArrayList<>();
    for (int e = 0; e < count; e++) {
      Matrix matrix = weight(encodings.get(e % encodings.size()), granularity, e + 1);
      MemorySegment bias = e % 2 == 0 ? null : numbers(Encoding.F32, N);
      MemorySegment multiplier = e % 3 == 0 ? null : numbers(Encoding.F32, K);
      onHost.add(new PackedGroup.Expert(REFERENCE.pack(matrix), bias, multiplier));
      PackedWeight packed = backend.pack(matrix);
      onGpu.add(new CudaGroup.Expert(packed, upload(bias), upload(multiplier)));
    }
    Encoding type = m % 2 == 0 ? Encoding.BF16 : Encoding.F32;
    MemorySegment x = numbers(type, (long) m * (K + 8));
    MemorySegment other = numbers(Encoding.F32, (long) m * N);
    Epilogue epilogue = new Epilogue(Activation.SILU, Combine.MULTIPLY);
    MemorySegment expected = arena.allocate(4L * m * N, 64);
    MemorySegment y = arena.allocate(4L * m * N, 64).fill((byte) 0x7F);
    MemorySegment again = arena.allocate(4L * m * N, 64);
    REFERENCE
        .group(onHost)
        .linear(
            LinearCall.of(x, type, K + 8, m, expected, Encoding.F32, N)
                .epilogue(epilogue, other, N)
                .compute(compute),
            offsets);
    try (CudaGroup group = backend.groupOf(onGpu);
        CudaStream stream = backend.stream();
        CudaMemory deviceX = backend.upload(x);
        CudaMemory deviceOther = backend.upload(other);
        CudaMemory deviceOffsets =
            backend.upload(arena.allocateFrom(ValueLayout.JAVA_LONG, offsets));
        CudaMemory deviceY = backend.allocate(y.byteSize())) {
      group.linear(
          LinearCall.of(x, type, K + 8, m, y, Encoding.F32, N)
              .epilogue(epilogue, other, N)
              .compute(compute),
          offsets);
      stream.fill(deviceY, (byte) 0x7F);
      group.linear(
          stream,
          LinearCall.of(deviceX, type, K + 8, m, deviceY, Encoding.F32, N)
              .epilogue(epilogue, deviceOther, N)
              .compute(compute),
          deviceOffsets);
      stream.download(deviceY, again);
    }
    assertThat(distance(again, expected)).as("on the device").isLessThan(bound(compute));
    assertThat(distance(y, expected)).as("on the host").isLessThan(bound(compute));
  }

  /** Those have a kernel of their own. */
  @Test
  void largeWeightsMeetAFewRowsEach() {
    int n = 4100;
    int k = 4096;
    long[] offsets = {0, 2, 2, 5, 6};
    int m = 6;
    List<CudaGroup.Expert> experts = new ArrayList<>();
    MemorySegment x = numbers(Encoding.BF16, (long) m * k);
    MemorySegment expected = arena.allocate(4L * m * n, 64);
    MemorySegment y = arena.allocate(4L * m * n, 64);
    for (int e = 0; e < 4; e++) {
      Matrix matrix =
          new TestMatrices(arena, e, true)
              .scaled(
                  Encoding.NF4,
                  n,
                  k,
                  CodeOrder.LOW_FIRST,
                  Granularity.perGroup(k, 64),
                  Encoding.F32);
      PackedWeight packed = backend.pack(matrix);
      experts.add(new CudaGroup.Expert(packed, null, null));
      long rows = offsets[e + 1] - offsets[e];
      if (rows > 0) {
        backend.linear(
            packed,
            LinearCall.of(
                    x.asSlice(2 * offsets[e] * k),
                    Encoding.BF16,
                    k,
                    rows,
                    expected.asSlice(4 * offsets[e] * n),
                    Encoding.F32,
                    n)
                .compute(Compute.BF16));
      }
    }
    try (CudaGroup group = backend.groupOf(experts);
        CudaStream stream = backend.stream();
        CudaMemory deviceX = backend.upload(x);
        CudaMemory deviceOffsets = backend.upload(MemorySegment.ofArray(offsets));
        CudaMemory deviceY = backend.allocate(y.byteSize())) {
      group.linear(
          stream,
          LinearCall.of(deviceX, Encoding.BF16, k, m, deviceY, Encoding.F32, n)
              .compute(Compute.BF16),
          deviceOffsets);
      stream.download(deviceY, y);
    }
    assertThat(distance(y, expected)).isLessThan(bound(Compute.BF16));
  }

  private @Nullable CudaMemory upload(@Nullable MemorySegment floats) {
    return floats == null ? null : backend.upload(floats);
  }

  /** Tensor cores that multiply bytes add fewer bits. */
  private static double bound(Compute compute) {
    return switch (compute) {
      case BF16, F8_BLOCK -> 4e-3;
      case F8_ROW -> 5e-4;
      default -> 4e-6 * Math.sqrt(K);
    };
  }

  private static double distance(MemorySegment found, MemorySegment expected) {
    double error = 0;
    double norm = 0;
    for (long i = 0; i < expected.byteSize() / 4; i++) {
      double e = Numbers.get(Encoding.F32, expected, i);
      double f = Numbers.get(Encoding.F32, found, i);
      error += (f - e) * (f - e);
      norm += e * e;
    }
    return Math.sqrt(error / norm);
  }

  /** The device cannot refuse offsets, but they lead nowhere outside of x and y. */
  @Test
  void offsetsThatDoNotHoldTogetherWriteNothingBeyondY() {
    Matrix matrix = weight(Encoding.NF4, Granularity.perGroup(K, 64), 3);
    int m = 40;
    try (PackedWeight packed = backend.pack(matrix);
        CudaGroup group =
            backend.groupOf(
                List.of(
                    new CudaGroup.Expert(packed, null, null),
                    new CudaGroup.Expert(packed, null, null),
                    new CudaGroup.Expert(packed, null, null)));
        CudaStream stream = backend.stream();
        CudaMemory x = backend.allocate(4L * m * K);
        CudaMemory whole = backend.allocate(4L * 3 * m * N)) {
      stream.fill(x, (byte) 0);
      CudaMemory y = whole.slice(4L * m * N, 4L * m * N);
      for (Compute compute : List.of(Compute.BF16, Compute.F32)) {
        for (long[] offsets :
            List.of(
                new long[] {-5, 90, 3, Long.MAX_VALUE},
                new long[] {0, 40, 0, 40},
                new long[] {Long.MIN_VALUE, Long.MAX_VALUE, Long.MIN_VALUE, 1L << 40})) {
          stream.fill(whole, (byte) 0x55);
          try (CudaMemory bad = backend.upload(MemorySegment.ofArray(offsets))) {
            group.linear(
                stream,
                LinearCall.of(x, Encoding.F32, K, m, y, Encoding.F32, N).compute(compute),
                bad);
          }
          byte[] found = new byte[4 * 3 * m * N];
          stream.download(whole, MemorySegment.ofArray(found));
          for (int i = 0; i < found.length; i++) {
            if (i / (4 * m * N) != 1) {
              assertThat(found[i]).isEqualTo((byte) 0x55);
            }
          }
        }
      }
      assertThatThrownBy(
              () ->
                  group.linear(
                      stream,
                      LinearCall.of(x, Encoding.F32, K, m, y, Encoding.F32, N),
                      y.slice(0, 24)))
          .isInstanceOf(IndexOutOfBoundsException.class)
          .hasMessageContaining("expected 4 64-bit integers");
    }
  }

  /** A weight that is closed first stays until the group is. */
  @Test
  void aGroupKeepsItsWeights() {
    Matrix matrix = weight(Encoding.NF4, Granularity.perGroup(K, 64), 3);
    float[] y = new float[N];
    PackedWeight packed = backend.pack(matrix);
    try (CudaGroup group = backend.groupOf(List.of(new CudaGroup.Expert(packed, null, null)))) {
      packed.close();
      MemorySegment x = numbers(Encoding.F32, K);
      group.linear(
          LinearCall.of(x, Encoding.F32, K, 1, MemorySegment.ofArray(y), Encoding.F32, N),
          new long[] {0, 1});
    }
    float[] expected = new float[N];
    assertThat(y).isNotEqualTo(expected);
    assertThatThrownBy(() -> backend.groupOf(List.of(new CudaGroup.Expert(packed, null, null))))
        .isInstanceOf(IllegalStateException.class);
  }

  @Test
  void thousandsOfGroupsLeaveNothingBehind() {
    Matrix matrix = weight(Encoding.NF4, Granularity.perGroup(K, 64), 3);
    MemorySegment x = numbers(Encoding.F32, K);
    float[] y = new float[N];
    long before = 0;
    for (int i = 0; i < 3_000; i++) {
      if (i == 100) { // what is made once has been made
        backend.synchronize();
        before = backend.gpu().freeBytes();
      }
      PackedWeight packed = backend.pack(matrix);
      try (CudaGroup group = backend.groupOf(List.of(new CudaGroup.Expert(packed, null, null)))) {
        packed.close();
        if (i % 100 == 0) {
          group.linear(
              LinearCall.of(x, Encoding.F32, K, 1, MemorySegment.ofArray(y), Encoding.F32, N),
              new long[] {0, 1});
        }
      }
    }
    backend.synchronize();
    assertThat(before - backend.gpu().freeBytes()).isLessThan(64L << 20);
  }
}
