package dev.gatun;

import dev.gatun.kernel.CudaGroup;
import dev.gatun.kernel.CudaMemory;
import dev.gatun.kernel.CudaStream;
import dev.gatun.kernel.LinearCall;
import dev.gatun.kernel.LinearCheck;
import dev.gatun.kernel.PackedGroup;
import dev.gatun.kernel.Pool;
import java.lang.foreign.MemorySegment;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/**
 * Linear layers of one shape, each for a run of rows of its own: the experts of a mixture. Rows of
 * x are sorted by expert, and one call multiplies them all; on the native backend threads share the
 * work of all experts, and on a GPU one launch multiplies it, so that experts with few rows cost no
 * more than their share. Thread-safe.
 *
 * <pre>{@code
 * try (GroupedLinear up = GroupedLinear.of(experts)) {
 *   up.forward(x, new long[] {0, 3, 3, 8}, y); // three experts; the second one has no rows
 * }
 * }</pre>
 */
public final class GroupedLinear implements AutoCloseable {
  private final List<Linear> experts;

  /** Null when the layers cannot be run together: then they run one after the other. */
  private final @Nullable PackedGroup group;

  /** The same for layers of one GPU, or null. */
  private final @Nullable CudaGroup onGpu;

  private final int threads;
  private final Pool<LinearCall<MemorySegment>> calls = new Pool<>(LinearCall::new);
  private final Pool<LinearCall<CudaMemory>> gpuCalls = new Pool<>(LinearCall::new);

  private GroupedLinear(
      List<Linear> experts, @Nullable PackedGroup group, @Nullable CudaGroup onGpu, int threads) {
    this.experts = experts;
    this.group = group;
    this.onGpu = onGpu;
    this.threads = threads;
  }

  /**
   * Groups layers, which are this one's from now on: closing it closes them.
   *
   * <p>Layers of one device and compute type run together; others, and those with static
   * activations or with outliers taken apart, one after the other.
   *
   * @param experts at least one, all with the same numbers of outputs and inputs
   * @throws GatunException when their shapes differ
   */
  public static GroupedLinear of(List<Linear> experts) {
    List<Linear> all = List.copyOf(experts);
    if (all.isEmpty()) {
      throw new GatunException("grouped linear: found no experts, expected at least 1");
    }
    Linear first = all.getFirst();
    for (int e = 1; e < all.size(); e++) {
      Linear expert = all.get(e);
      if (expert.outFeatures() != first.outFeatures()
          || expert.inFeatures() != first.inFeatures()) {
        throw new GatunException(
            "grouped linear: found expert "
                + e
                + " of "
                + expert.outFeatures()
                + " x "
                + expert.inFeatures()
                + ", expected "
                + first.outFeatures()
                + " x "
                + first.inFeatures()
                + " as the first");
      }
    }
    if (first instanceof CudaLinear packed && all.stream().allMatch(packed::goesWith)) {
      List<CudaGroup.Expert> parts =
          all.stream().map(expert -> ((CudaLinear) expert).expert()).toList();
      return new GroupedLinear(all, null, packed.backend().groupOf(parts), 0);
    }
    if (!(first instanceof PackedLinear packed)
        || !all.stream().allMatch(expert -> packed.goesWith(expert))) {
      return new GroupedLinear(all, null, null, 0);
    }
    List<PackedGroup.Expert> parts =
        all.stream().map(expert -> ((PackedLinear) expert).expert()).toList();
    return new GroupedLinear(all, packed.backend().group(parts), null, packed.threads());
  }

  /** How many experts there are. */
  public int experts() {
    return experts.size();
  }

  /** N: output features of every expert. */
  public long outFeatures() {
    return experts.getFirst().outFeatures();
  }

  /** K: input features of every expert. */
  public long inFeatures() {
    return experts.getFirst().inFeatures();
  }

  /**
   * y = x · Wᵀ + b in floats, W and b being those of a row's expert.
   *
   * @param x M × K floats, row-major, sorted by expert
   * @param offsets expert e has rows {@code offsets[e] .. offsets[e+1]-1}: one more than there are
   *     experts, from 0 on, none below the one before; the last is M, which may be 0
   * @param y M × N floats, row-major; must not overlap x
   * @throws GatunException when the offsets do not hold together
   * @throws IndexOutOfBoundsException when x or y is too short
   * @throws IllegalStateException when this is closed
   */
  public void forward(MemorySegment x, long[] offsets, MemorySegment y) {
    long n = outFeatures();
    forward(x, Encoding.F32, inFeatures(), offsets, y, Encoding.F32, n, Epilogue.NONE, null, n);
  }

  /**
   * The same with other types of x and y (F32, F16, BF16), rows {@code ldx}, {@code ldy} and {@code
   * ldOther} elements apart, and an epilogue.
   *
   * @param other M × N numbers of y's type: y itself or memory that does not overlap it; null when
   *     the epilogue combines nothing
   */
  public void forward(
      MemorySegment x,
      Encoding xType,
      long ldx,
      long[] offsets,
      MemorySegment y,
      Encoding yType,
      long ldy,
      Epilogue epilogue,
      @Nullable MemorySegment other,
      long ldOther) {
    long m = LinearCheck.offsets(Objects.requireNonNull(offsets, "offsets"), experts.size());
    if (m == 0) {
      return;
    }
    LinearCall<MemorySegment> call = calls.take();
    try {
      call.operands(x, xType, ldx, m, y, yType, ldy)
          .bias(null)
          .multiplier(null)
          .epilogue(epilogue, other, ldOther)
          .compute(experts.getFirst().compute())
          .threads(threads);
      PackedLinear.check(outFeatures(), inFeatures(), call);
      if (onGpu != null) {
        onGpu.linear(call, offsets);
      } else if (group != null) {
        together(group, call, offsets);
      } else {
        oneByOne(call, offsets);
      }
    } finally {
      call.clear();
      calls.give(call);
    }
  }

  /**
   * The same in floats on a GPU's memory. Gives the work to the stream and returns before it is
   * done; where the rows of an expert begin, the host does not learn.
   *
   * @param stream of the experts' device
   * @param x M × K floats, row-major, sorted by expert
   * @param offsets 64-bit integers: one more than there are experts, from 0 on, none below the one
   *     before, the last one M or less. Rows that no expert has keep what y holds. The device
   *     cannot refuse other offsets: it then leaves rows out or multiplies some twice
   * @param m rows of x; 0: nothing is done
   * @param y M × N floats, row-major; must not overlap x
   * @throws GatunException when the experts do not run together on a GPU, or not on the stream's
   * @throws IndexOutOfBoundsException when x, y or the offsets are too short
   * @throws IllegalStateException when this, the stream or memory is closed
   */
  public void forward(CudaStream stream, CudaMemory x, CudaMemory offsets, long m, CudaMemory y) {
    long n = outFeatures();
    forward(
        stream,
        x,
        Encoding.F32,
        inFeatures(),
        offsets,
        m,
        y,
        Encoding.F32,
        n,
        Epilogue.NONE,
        null,
        n);
  }

  /**
   * The same with other types of x and y (F32, F16, BF16), rows {@code ldx}, {@code ldy} and {@code
   * ldOther} elements apart, and an epilogue.
   *
   * @param other M × N numbers of y's type: y itself or memory that does not overlap it; null when
   *     the epilogue combines nothing
   */
  public void forward(
      CudaStream stream,
      CudaMemory x,
      Encoding xType,
      long ldx,
      CudaMemory offsets,
      long m,
      CudaMemory y,
      Encoding yType,
      long ldy,
      Epilogue epilogue,
      @Nullable CudaMemory other,
      long ldOther) {
    Objects.requireNonNull(stream, "stream");
    Objects.requireNonNull(offsets, "offsets");
    if (onGpu == null) {
      throw new GatunException(
          "grouped linear: found a stream for experts that do not run together on a GPU's own"
              + " memory, expected layers of one CudaDevice and compute type");
    }
    if (m == 0) {
      return;
    }
    LinearCall<CudaMemory> call = gpuCalls.take();
    try {
      call.operands(x, xType, ldx, m, y, yType, ldy)
          .epilogue(epilogue, other, ldOther)
          .compute(experts.getFirst().compute());
      onGpu.linear(stream, call, offsets);
    } finally {
      call.clear();
      gpuCalls.give(call);
    }
  }

  private void together(PackedGroup group, LinearCall<MemorySegment> call, long[] offsets) {
    int entered = 0;
    try {
      while (entered < experts.size()) {
        ((PackedLinear) experts.get(entered)).enter();
        entered++;
      }
      group.linear(call, offsets);
    } finally {
      while (entered > 0) {
        entered--;
        ((PackedLinear) experts.get(entered)).leave();
      }
    }
  }

  private void oneByOne(LinearCall<MemorySegment> call, long[] offsets) {
    int ySize = call.yType().bits() / 8;
    MemorySegment other = call.other();
    for (int e = 0; e < experts.size(); e++) {
      long row = offsets[e];
      if (offsets[e + 1] > row) {
        experts
            .get(e)
            .forward(
                call.x().asSlice(row * call.ldx() * (call.xType().bits() / 8)),
                call.xType(),
                call.ldx(),
                offsets[e + 1] - row,
                call.y().asSlice(row * call.ldy() * ySize),
                call.yType(),
                call.ldy(),
                call.epilogue(),
                other == null ? null : other.asSlice(row * call.ldOther() * ySize),
                call.ldOther());
      }
    }
  }

  /** Closes the experts. A second call does nothing. */
  @Override
  public void close() {
    experts.forEach(Linear::close);
    if (group != null) {
      group.close();
    }
    if (onGpu != null) {
      onGpu.close();
    }
  }
}
