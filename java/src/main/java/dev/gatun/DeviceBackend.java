package dev.gatun;

import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Deviation;
import dev.gatun.kernel.LinearCall;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.Operation;
import dev.gatun.kernel.PackedWeight;
import dev.gatun.kernel.QuantizeRule;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/** Runs each operation on the first of a device's backends that takes it. */
final class DeviceBackend implements Backend {
  private final Device device;
  private final List<Backend> backends;

  DeviceBackend(Device device) {
    this(
        device,
        device.order().stream()
            .filter(name -> device.refuses(name).isEmpty())
            .map(device::backend)
            .toList());
  }

  /**
   * Runs on some of the backends of a device.
   *
   * @param backends in the order in which they are asked
   */
  private DeviceBackend(Device device, List<Backend> backends) {
    this.device = device;
    this.backends = backends;
  }

  /** A packed weight and who packed it. */
  private record Owned(Backend backend, PackedWeight weight) implements PackedWeight {
    @Override
    public long n() {
      return weight.n();
    }

    @Override
    public long k() {
      return weight.k();
    }

    @Override
    public long byteSize() {
      return weight.byteSize();
    }

    @Override
    public String kernel(Compute compute, long m) {
      return weight.kernel(compute, m);
    }

    @Override
    public void close() {
      weight.close();
    }
  }

  /** The first backend that does not refuse; a clear refusal when all do. */
  private Backend first(String what, Function<Backend, Optional<String>> refuses) {
    List<String> reasons = new ArrayList<>();
    for (Backend backend : backends) {
      Optional<String> why = refuses.apply(backend);
      if (why.isEmpty()) {
        reasons.forEach(reason -> Device.sayOnce(reason + "; " + backend.name() + " runs instead"));
        return backend;
      }
      reasons.add(backend.name() + ": " + why.get());
    }
    throw new GatunException(
        what + ": nothing on " + device + " runs it (" + String.join("; ", reasons) + ")");
  }

  private Backend first(Operation operation, Matrix matrix) {
    return first(
        operation + " of " + matrix.encoding(),
        b -> b.refuses(operation, matrix, Optional.empty()));
  }

  private static Owned owned(PackedWeight packed) {
    if (packed instanceof Owned owned) {
      return owned;
    }
    throw new GatunException(
        "device: found a weight that another device packed, expected one of its own");
  }

  @Override
  public String name() {
    return device.name();
  }

  @Override
  public List<Kernel> kernels() {
    return backends.stream().flatMap(b -> b.kernels().stream()).toList();
  }

  @Override
  public Optional<String> refuses(Operation operation, Matrix matrix, Optional<Compute> compute) {
    List<String> reasons = new ArrayList<>();
    for (Backend backend : backends) {
      Optional<String> why = backend.refuses(operation, matrix, compute);
      if (why.isEmpty()) {
        return Optional.empty();
      }
      reasons.add(backend.name() + ": " + why.get());
    }
    return Optional.of(String.join("; ", reasons));
  }

  @Override
  public String dequantize(
      Matrix matrix, long row0, long rows, MemorySegment out, Encoding outType) {
    return first(Operation.DEQUANTIZE, matrix).dequantize(matrix, row0, rows, out, outType);
  }

  @Override
  public String embedding(Matrix matrix, long[] ids, MemorySegment out, Encoding outType) {
    return first(Operation.EMBEDDING, matrix).embedding(matrix, ids, out, outType);
  }

  @Override
  public String quantize(Matrix matrix, QuantizeRule rule, MemorySegment w, Encoding wType) {
    return first(Operation.QUANTIZE, matrix).quantize(matrix, rule, w, wType);
  }

  @Override
  public Deviation deviation(Matrix matrix, long row0, long rows, MemorySegment w, Encoding wType) {
    return first(Operation.DEQUANTIZE, matrix).deviation(matrix, row0, rows, w, wType);
  }

  @Override
  public Backend onOneThread() {
    return new DeviceBackend(device, backends.stream().map(Backend::onOneThread).toList());
  }

  @Override
  public String convert(
      MemorySegment src,
      Encoding srcType,
      MemorySegment dst,
      Encoding dstType,
      long count,
      boolean saturate) {
    Backend backend =
        first(
            "CONVERT to " + dstType,
            b ->
                b.kernel(Operation.CONVERT, dstType, Optional.empty()).isPresent()
                    ? Optional.empty()
                    : Optional.of("no kernel for convert to " + dstType));
    return backend.convert(src, srcType, dst, dstType, count, saturate);
  }

  @Override
  public PackedWeight pack(Matrix matrix) {
    Backend backend = first(Operation.PACK, matrix);
    return new Owned(backend, backend.pack(matrix));
  }

  @Override
  public void unpack(PackedWeight packed, Matrix into) {
    Owned owned = owned(packed);
    owned.backend.unpack(owned.weight, into);
  }

  @Override
  public void linear(PackedWeight packed, LinearCall<MemorySegment> call) {
    Owned owned = owned(packed);
    owned.backend.linear(owned.weight, call);
  }

  @Override
  public void round(
      Rounding rounding,
      MemorySegment x,
      Encoding xType,
      long ldx,
      long rows,
      long columns,
      @Nullable MemorySegment xMultiplier,
      MemorySegment y,
      Encoding yType,
      long ldy,
      int threads) {
    device
        .backend()
        .round(rounding, x, xType, ldx, rows, columns, xMultiplier, y, yType, ldy, threads);
  }
}
