package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.DynamicTest.dynamicTest;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.Epilogue.Activation;
import dev.gatun.Epilogue.Combine;
import dev.gatun.GatunException;
import dev.gatun.bindings.NativeLibrary;
import dev.gatun.bindings.gatun_h;
import dev.gatun.kernel.codec.Activations;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.kernel.vector.VectorBackend;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.TestInstance;

/** What {@code linear} does before and after its sums, on every backend and instruction set. */
@TestInstance(TestInstance.Lifecycle.PER_CLASS)
class FusedLinearTest {
  private static final List<Encoding> PLAIN = List.of(Encoding.F32, Encoding.F16, Encoding.BF16);
  private static final int N = 71; // no multiple of a panel
  private static final int K = 96;

  /** The last is too many for a call that takes y from the heap as it is. */
  private static final long[] ROWS = {1, 65, 170};

  private final ReferenceBackend reference = new ReferenceBackend();
  private final VectorBackend vector = new VectorBackend(3);

  private @Nullable CudaBackend cuda;

  @AfterAll
  void close() {
    vector.close();
    if (cuda != null) {
      cuda.close();
    }
  }

  @BeforeAll
  void gpu() {
    if (Cuda.hasGpu()) {
      cuda = (CudaBackend) new CudaProvider().create(1);
    }
  }

  private Map<String, Backend> backends() {
    Map<String, Backend> backends = new LinkedHashMap<>();
    backends.put("vector", vector);
    backends.put("unfused", unfused(reference));
    if (cuda != null) {
      backends.put("cuda", cuda);
    }
    if (NativeLibrary.load() instanceof NativeLibrary.Loaded) {
      for (int isa = gatun_h.GATUN_ISA_SCALAR(); isa <= gatun_h.GATUN_ISA_NEON(); isa++) {
        if (gatun_h.gatun_isa_check(isa) == gatun_h.GATUN_OK()) {
          backends.put("native " + NativeBackend.isaName(isa), new NativeBackend(3, isa));
        }
      }
    }
    return backends;
  }

  private static void linear(Backend backend, PackedWeight w, LinearCall<MemorySegment> call) {
    assertThat(call.isPlain()).isTrue();
    backend.linear(w, call);
  }

  /** A backend that has no epilogue of its own: what {@link UnfusedLinear} does for it. */
  private static Backend unfused(Backend backend) {
    InvocationHandler handler =
        (proxy, method, arguments) -> {
          try {
            if (method.getName().equals("linear")) {
              PackedWeight packed = (PackedWeight) arguments[0];
              @SuppressWarnings("unchecked")
              LinearCall<MemorySegment> call = (LinearCall<MemorySegment>) arguments[1];
              UnfusedLinear.run(packed, call, (w, plain) -> linear(backend, w, plain));
              return null;
            }
            return method.invoke(backend, arguments);
          } catch (InvocationTargetException e) {
            throw e.getCause();
          }
        };
    return (Backend)
        Proxy.newProxyInstance(
            Backend.class.getClassLoader(), new Class<?>[] {Backend.class}, handler);
  }

  /** The memory of one call. Rows of y and other are {@code N + gap} elements apart. */
  private static final class Call {
    final long rows;
    final Encoding xType;
    final Encoding yType;
    final long ld;
    final MemorySegment x;
    final MemorySegment other;
    final MemorySegment bias = numbers(1, N, N, Encoding.F32, 3);
    final MemorySegment multiplier = numbers(1, K, K, Encoding.F32, 4);

    Call(long rows, Encoding xType, Encoding yType, Arena arena) {
      this.rows = rows;
      this.xType = xType;
      this.yType = yType;
      this.ld = N + rows % 3;
      x = arena.allocate(rows * K * 4, 64);
      x.copyFrom(numbers(rows, K, K, xType, 1));
      other = arena.allocate(rows * ld * 4, 64).copyFrom(numbers(rows, N, ld, yType, 2));
    }

    /** y of a call; with {@code inPlace} it holds `other` before. */
    MemorySegment run(
        Backend backend,
        PackedWeight packed,
        Epilogue epilogue,
        boolean scaled,
        boolean inPlace,
        Compute compute) {
      MemorySegment y = MemorySegment.ofArray(new byte[Math.toIntExact(rows * ld * 4)]);
      y.copyFrom(other);
      boolean combines = epilogue.combine() != Combine.NONE;
      MemorySegment with = !combines ? null : inPlace ? y : other;
      backend.linear(
          packed,
          LinearCall.of(x, xType, K, rows, y, yType, ld)
              .bias(bias)
              .multiplier(scaled ? multiplier : null)
              .epilogue(epilogue, with, ld)
              .compute(compute));
      return y;
    }
  }

  private static MemorySegment numbers(long rows, long columns, long ld, Encoding type, int seed) {
    SplittableRandom random = new SplittableRandom(seed + rows);
    MemorySegment data =
        MemorySegment.ofArray(new byte[Math.toIntExact(rows * ld * type.bits() / 8)]);
    for (long i = 0; i < rows * ld; i++) {
      Numbers.put(type, data, i, i % ld < columns ? (float) random.nextDouble(-2, 2) : 7f);
    }
    return data;
  }

  @TestFactory
  Stream<DynamicTest> followsTheDefinition() {
    return backends().entrySet().stream()
        .map(e -> dynamicTest(e.getKey(), () -> followsTheDefinition(e.getValue())));
  }

  private void followsTheDefinition(Backend backend) {
    for (Encoding encoding : List.of(Encoding.NF4, Encoding.I8, Encoding.F32)) {
      Matrix m = Samples.encoding(encoding, N, K).matrix();
      try (Arena arena = Arena.ofShared();
          PackedWeight packed = backend.pack(m);
          PackedWeight definition = reference.pack(m)) {
        int turn = 0;
        for (Compute compute : Compute.multiplies()) {
          if (backend.refuses(Operation.LINEAR, m, Optional.of(compute)).isPresent()
              || reference.refuses(Operation.LINEAR, m, Optional.of(compute)).isPresent()) {
            continue;
          }
          for (Epilogue epilogue : epilogues()) {
            for (long rows : ROWS) {
              Encoding yType = PLAIN.get(turn % 3);
              Call call = new Call(rows, PLAIN.get(turn / 3 % 3), yType, arena);
              boolean scaled = turn % 2 == 0;
              boolean inPlace = turn % 4 < 2;
              String what =
                  encoding + ", " + compute + ", " + epilogue + ", " + rows + " rows, y " + yType;
              MemorySegment y = call.run(backend, packed, epilogue, scaled, inPlace, compute);
              MemorySegment expected =
                  call.run(reference, definition, epilogue, scaled, false, compute);
              double bound = compute == Compute.BF16 ? 4e-3 : 1e-6 * Math.sqrt(K);
              assertClose(what, y, expected, call, bound);
              turn++;
            }
          }
        }
      }
    }
  }

  private static List<Epilogue> epilogues() {
    List<Epilogue> all = new ArrayList<>();
    for (Activation activation : Activation.values()) {
      for (Combine combine : Combine.values()) {
        all.add(new Epilogue(activation, combine));
      }
    }
    return all;
  }

  private static void assertClose(
      String what, MemorySegment y, MemorySegment expected, Call call, double bound) {
    double rounding =
        switch (call.yType) {
          case F32 -> 0;
          case F16 -> 0x1p-10;
          default -> 0x1p-7;
        };
    double error = 0;
    double size = 0;
    for (long i = 0; i < call.rows * call.ld; i++) {
      float found = Numbers.get(call.yType, y, i);
      float e = Numbers.get(call.yType, expected, i);
      if (i % call.ld >= N) {
        assertThat(found).as("%s: between rows, number %d", what, i).isEqualTo(7f);
      } else {
        error += ((double) found - e) * ((double) found - e);
        size += (double) e * e;
      }
    }
    assertThat(Math.sqrt(error)).as(what).isLessThanOrEqualTo((bound + rounding) * Math.sqrt(size));
  }

  /** So that a machine without one says that it has not been tested. */
  @Test
  void theGpuIsAmongTheBackends() {
    Cuda.requireGpu();
    assertThat(backends()).containsKey("cuda");
  }

  @Test
  void theDefinitionActivatesWhatThePlainCallStores() {
    Matrix m = Samples.encoding(Encoding.I8, N, K).matrix();
    try (Arena arena = Arena.ofShared();
        PackedWeight packed = reference.pack(m)) {
      Call call = new Call(5, Encoding.F32, Encoding.F32, arena);
      MemorySegment sums = call.run(reference, packed, Epilogue.NONE, false, false, Compute.F32);
      for (Epilogue epilogue : epilogues()) {
        MemorySegment y = call.run(reference, packed, epilogue, false, true, Compute.F32);
        for (long i = 0; i < 5 * N; i++) {
          long at = i / N * call.ld + i % N;
          double sum = Numbers.get(Encoding.F32, sums, at);
          double other = Numbers.get(Encoding.F32, call.other, at);
          double expected = Activations.apply(epilogue, sum, other);
          assertThat((double) Numbers.get(Encoding.F32, y, at))
              .as("%s, number %d", epilogue, at)
              .isCloseTo(expected, org.assertj.core.data.Offset.offset(1e-6 * (1 + Math.abs(sum))));
        }
      }
      // x' = x · multiplier is what a caller would have multiplied in floats.
      MemorySegment scaled = call.run(reference, packed, Epilogue.NONE, true, false, Compute.I8);
      for (long i = 0; i < 5 * K; i++) {
        float factor = Numbers.get(Encoding.F32, call.multiplier, i % K);
        Numbers.put(Encoding.F32, call.x, i, Numbers.get(Encoding.F32, call.x, i) * factor);
      }
      MemorySegment plain = call.run(reference, packed, Epilogue.NONE, false, false, Compute.I8);
      assertThat(scaled.mismatch(plain)).isEqualTo(-1);
    }
  }

  @TestFactory
  Stream<DynamicTest> nanAndInfinityComeOutAsInTheDefinition() {
    return backends().entrySet().stream()
        .map(e -> dynamicTest(e.getKey(), () -> specials(e.getValue())));
  }

  private void specials(Backend backend) {
    Matrix m = Samples.encoding(Encoding.U8, N, K).matrix(); // no weight is negative
    float[] specials = {
      Float.NaN, Float.POSITIVE_INFINITY, Float.NEGATIVE_INFINITY, -1e30f, 1e30f, -300f, 300f
    };
    try (Arena arena = Arena.ofShared();
        PackedWeight packed = backend.pack(m);
        PackedWeight definition = reference.pack(m)) {
      for (Epilogue epilogue : epilogues()) {
        Call call = new Call(specials.length, Encoding.F32, Encoding.F32, arena);
        for (int i = 0; i < specials.length; i++) {
          Numbers.put(Encoding.F32, call.x, (long) i * K + 50, specials[i]);
        }
        Numbers.put(Encoding.F32, call.other, 3, Float.NaN);
        MemorySegment y = call.run(backend, packed, epilogue, false, true, Compute.F32);
        MemorySegment expected =
            call.run(reference, definition, epilogue, false, false, Compute.F32);
        for (long i = 0; i < specials.length * call.ld; i++) {
          float found = Numbers.get(Encoding.F32, y, i);
          float e = Numbers.get(Encoding.F32, expected, i);
          boolean same =
              Float.isFinite(e)
                  ? Math.abs(found - e) <= 1e-4 * Math.max(1, Math.abs(e))
                  : Float.compare(found, e) == 0;
          assertThat(same)
              .as("%s: number %d, found %s, expected %s", epilogue, i, found, e)
              .isTrue();
        }
      }
    }
  }

  @TestFactory
  Stream<DynamicTest> refusesAnOtherThatDoesNotFit() {
    return backends().entrySet().stream()
        .map(e -> dynamicTest(e.getKey(), () -> refusals(e.getValue())));
  }

  private static void refusals(Backend backend) {
    Matrix m = Samples.encoding(Encoding.I8, 8, 16).matrix();
    MemorySegment data = MemorySegment.ofArray(new float[16]);
    MemorySegment seven = MemorySegment.ofArray(new float[7]);
    MemorySegment eight = MemorySegment.ofArray(new float[8]);
    try (PackedWeight packed = backend.pack(m)) {
      assertThatThrownBy(() -> small(backend, packed, Combine.ADD, data, null, null, 8))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found no 'other' with combine ADD");
      assertThatThrownBy(() -> small(backend, packed, Combine.NONE, data, null, eight, 8))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found an 'other' with combine NONE");
      assertThatThrownBy(() -> small(backend, packed, Combine.ADD, data, null, seven, 8))
          .isInstanceOf(IndexOutOfBoundsException.class)
          .hasMessageContaining("found other of 28 bytes");
      assertThatThrownBy(() -> small(backend, packed, Combine.ADD, data, null, eight, 7))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found rows of other 7 elements apart, expected at least 8");
      assertThatThrownBy(() -> small(backend, packed, Combine.NONE, data, eight, null, 8))
          .isInstanceOf(IndexOutOfBoundsException.class)
          .hasMessageContaining("found a multiplier of x of 32 bytes, expected 16 floats");
    }
  }

  private static void small(
      Backend backend,
      PackedWeight packed,
      Combine combine,
      MemorySegment x,
      @Nullable MemorySegment multiplier,
      @Nullable MemorySegment other,
      long ld) {
    MemorySegment y = MemorySegment.ofArray(new float[8]);
    backend.linear(
        packed,
        LinearCall.of(x, Encoding.F32, 16, 1, y, Encoding.F32, 8)
            .multiplier(multiplier)
            .epilogue(Epilogue.of(combine), other, ld)
            .threads(1));
  }
}
