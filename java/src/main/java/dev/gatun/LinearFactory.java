package dev.gatun;

import dev.gatun.kernel.Backend;
import dev.gatun.kernel.CudaActivations;
import dev.gatun.kernel.CudaBackend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixCheck;
import dev.gatun.kernel.Operation;
import dev.gatun.kernel.PackedStore;
import dev.gatun.kernel.PackedWeight;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.LayoutRegistry;
import dev.gatun.layout.PlainLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/** Binds a weight to the entry point that runs it, and packs it. */
final class LinearFactory {
  private LinearFactory() {}

  static Linear of(
      QuantizedTensor weight,
      @Nullable Tensor bias,
      Compute compute,
      Device device,
      PackedStore store) {
    Objects.requireNonNull(store, "store");
    Objects.requireNonNull(weight, "weight");
    Objects.requireNonNull(compute, "compute");
    Objects.requireNonNull(device, "device");
    Matrix matrix = weight.matrix();
    try {
      MatrixCheck.check(matrix);
    } catch (GatunException e) {
      throw new GatunException(weight.name() + ": " + e.getMessage(), e);
    }
    if (compute.isStatic()) {
      matrix = staticMatrix(weight, matrix, compute);
    }
    LayoutRegistry registry = LayoutRegistry.get();
    Compute multiply = compute.multiply();
    Optional<LayoutRegistry.Choice> choice =
        registry.choose(
            Operation.LINEAR, weight.layout(), matrix, 1, Optional.of(multiply), device);
    if (choice.isPresent()) {
      Backend backend = choice.get().backend();
      if (!backend.name().equals(device.name())) {
        Device.sayOnce(
            "linear of "
                + matrix.encoding()
                + " with compute "
                + compute
                + ": "
                + device.name()
                + " has no kernel; "
                + backend.name()
                + " runs instead");
      }
      return pack(weight, matrix, bias, compute, device, backend, store);
    }
    return dequantized(weight, bias, compute, device, registry);
  }

  /**
   * The matrix that is multiplied by a rounded x: without the roundings to a shorter type that
   * dequantizing has, since the libraries multiply the codes and scale the sums.
   */
  private static Matrix staticMatrix(QuantizedTensor weight, Matrix matrix, Compute compute) {
    StaticActivations how = weight.activations().orElse(null);
    if (how == null || how.compute() != compute) {
      throw new GatunException(
          weight.name()
              + ": found "
              + (how == null ? "no static activations" : "activations of " + how.encoding())
              + ", expected "
              + (compute == Compute.F8 ? "8-bit floats" : "I8")
              + " for compute "
              + compute);
    }
    boolean plainCodes = matrix.offsets().isEmpty() && matrix.zeros().isEmpty();
    return plainCodes
        ? matrix.toBuilder().arithmetic(Encoding.F32).result(Encoding.F32).build()
        : matrix;
  }

  /**
   * What an operation that nobody registered falls back to: plain floats and the high-precision
   * multiply.
   */
  private static Linear dequantized(
      QuantizedTensor weight,
      @Nullable Tensor bias,
      Compute compute,
      Device device,
      LayoutRegistry registry) {
    Optional<Compute> multiply = Optional.of(compute.multiply());
    String reasons =
        String.join("; ", registry.explain(Operation.LINEAR, weight, 1, multiply, device).lines());
    if (device.isStrict()) {
      throw new GatunException(
          weight.name()
              + ": the device runs nothing for linear of "
              + weight.layout().name()
              + " with compute "
              + compute
              + " ("
              + reasons
              + ")");
    }
    Matrix matrix = weight.matrix();
    Backend dequantizer =
        registry
            .choose(Operation.DEQUANTIZE, weight.layout(), matrix, 0, Optional.empty(), device)
            .map(LayoutRegistry.Choice::backend)
            .orElseThrow(
                () ->
                    new GatunException(
                        weight.name() + ": nothing dequantizes it (" + reasons + ")"));
    Device.sayOnce(
        "linear of "
            + weight.layout().name()
            + " with compute "
            + compute
            + ": no entry point runs it; it is dequantized and multiplied as floats ("
            + reasons
            + ")");
    try (Arena arena = Arena.ofShared()) {
      MemorySegment floats =
          arena.allocate(
              Math.multiplyExact(Math.multiplyExact(matrix.n(), matrix.k()), Float.BYTES), 64);
      dequantizer.dequantize(matrix, 0, matrix.n(), floats, Encoding.F32);
      PlainLayout layout = new PlainLayout(Encoding.F32);
      Matrix plain = layout.matrix(matrix.n(), matrix.k(), floats);
      Backend backend =
          registry
              .choose(Operation.LINEAR, layout, plain, 1, Optional.of(Compute.F32), device)
              .map(LayoutRegistry.Choice::backend)
              .orElseThrow(
                  () ->
                      new GatunException(
                          weight.name() + ": nothing multiplies floats on " + device));
      Compute asFloats = compute.isStatic() ? compute : Compute.F32;
      return pack(weight, plain, bias, asFloats, device, backend, PackedStore.NONE);
    }
  }

  private static Linear pack(
      QuantizedTensor weight,
      Matrix matrix,
      @Nullable Tensor bias,
      Compute compute,
      Device device,
      Backend backend,
      PackedStore store) {
    Arena arena = Arena.ofShared();
    @Nullable PackedWeight packed = null;
    boolean done = false;
    try {
      MemorySegment floats =
          bias == null ? null : floats(weight.name(), "bias", bias, matrix.n(), arena);
      Tensor factors = weight.inputMultiplier().orElse(null);
      MemorySegment multiplier =
          factors == null
              ? null
              : floats(weight.name(), "input multiplier", factors, matrix.k(), arena);
      if (backend instanceof CudaBackend cuda) {
        CudaActivations activations =
            compute.isStatic()
                ? CudaActivations.rounded(
                    weight.inputRounding().orElseThrow(), weight.outputRounding().orElse(null))
                : null;
        return CudaLinear.of(cuda, matrix, floats, multiplier, compute, activations);
      }
      PackedLinear.Roundings roundings = PackedLinear.Roundings.NONE;
      if (compute.isStatic()) {
        boolean integers =
            compute == Compute.I8_STATIC
                && backend.refuses(Operation.LINEAR, matrix, Optional.of(Compute.I8)).isEmpty();
        roundings =
            new PackedLinear.Roundings(
                weight.inputRounding().orElseThrow(),
                weight.outputRounding().orElse(null),
                integers);
      }
      packed = store.find(backend, matrix).orElse(null);
      packed = packed == null ? backend.pack(matrix) : packed;
      Linear linear =
          new PackedLinear(
              backend, packed, floats, multiplier, roundings, arena, compute, device.threads());
      done = true;
      return linear;
    } finally {
      if (!done) {
        arena.close();
        if (packed != null) {
          packed.close();
        }
      }
    }
  }

  /** A vector of plain numbers as floats. */
  private static MemorySegment floats(
      String name, String what, Tensor vector, long count, Arena arena) {
    Encoding type = plainType(vector);
    if (vector.elements() != count || vector.data().byteSize() / (type.bits() / 8) < count) {
      throw new GatunException(
          name
              + ": found "
              + what
              + " '"
              + vector.name()
              + "' of shape "
              + vector.shape()
              + " and "
              + vector.data().byteSize()
              + " bytes, expected "
              + count
              + " numbers");
    }
    MemorySegment floats = arena.allocate(Math.multiplyExact(count, Float.BYTES), 64);
    for (long i = 0; i < count; i++) {
      Numbers.put(Encoding.F32, floats, i, Numbers.get(type, vector.data(), i));
    }
    return floats;
  }

  private static Encoding plainType(Tensor tensor) {
    return tensor
        .dtype()
        .encoding()
        .filter(Encoding::isPlain)
        .orElseThrow(
            () ->
                new GatunException(
                    tensor.name()
                        + ": found type "
                        + tensor.dtype()
                        + ", expected F32, F16 or BF16"));
  }

  /** A plain tensor as a weight. */
  static QuantizedTensor plain(Tensor weight) {
    Encoding type = plainType(Objects.requireNonNull(weight, "weight"));
    List<Long> shape = weight.shape();
    if (shape.size() < 2 || shape.stream().anyMatch(size -> size < 0)) {
      throw new GatunException(weight.name() + ": found shape " + shape + ", expected [N, K]");
    }
    long n = shape.get(0);
    long k;
    try {
      k = shape.stream().skip(1).reduce(1L, Math::multiplyExact);
    } catch (ArithmeticException e) {
      throw new GatunException(weight.name() + ": found shape " + shape + ", which overflows", e);
    }
    PlainLayout layout = new PlainLayout(type);
    return new QuantizedTensor(
        weight.name(),
        shape,
        layout,
        Map.of("codes", weight),
        layout.matrix(n, k, weight.data()),
        type);
  }
}
