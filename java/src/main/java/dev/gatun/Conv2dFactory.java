package dev.gatun;

import dev.gatun.checkpoint.DType;
import dev.gatun.kernel.Matrix;
import dev.gatun.layout.GenericOperations;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** Packs the weight of a convolution: one linear layer a group. */
final class Conv2dFactory {
  private Conv2dFactory() {}

  static Conv2d of(
      QuantizedTensor weight,
      @Nullable Tensor bias,
      Conv2d.Geometry geometry,
      Compute compute,
      Device device) {
    Objects.requireNonNull(geometry, "geometry");
    List<Long> shape = weight.shape();
    int groups = geometry.groups();
    boolean possible =
        shape.size() == 4
            && shape.stream().allMatch(size -> size >= 1)
            && shape.get(0) % groups == 0
            && shape.get(2) <= 4096
            && shape.get(3) <= 4096;
    if (!possible) {
      throw new GatunException(
          weight.name()
              + ": found a weight of shape "
              + shape
              + " for "
              + groups
              + " groups, expected [N, C, height, width] with N a multiple of the groups");
    }
    if (compute.isStatic()) {
      throw new GatunException(
          weight.name()
              + ": found compute "
              + compute
              + " for a convolution, whose input no library rounds, expected another");
    }
    List<Linear> linears = new ArrayList<>();
    boolean done = false;
    try (Arena arena = Arena.ofShared()) {
      long rows = shape.get(0) / groups;
      for (int g = 0; g < groups; g++) {
        QuantizedTensor part = groups == 1 ? weight : rows(weight, g * rows, rows, device, arena);
        Tensor own = bias == null || groups == 1 ? bias : part(bias, g * rows, rows, weight);
        linears.add(Linear.of(part, own, compute, device));
      }
      done = true;
    } finally {
      if (!done) {
        linears.forEach(Linear::close);
      }
    }
    return new Conv2d(
        linears.toArray(Linear[]::new),
        geometry,
        shape.get(1),
        Math.toIntExact(shape.get(2)),
        Math.toIntExact(shape.get(3)));
  }

  /** Some rows of a weight; dequantized where its codes or scales do not start with a row. */
  private static QuantizedTensor rows(
      QuantizedTensor weight, long row0, long rows, Device device, Arena arena) {
    try {
      return GenericOperations.slice(weight, row0, rows);
    } catch (GatunException e) {
      Device.sayOnce(
          "conv2d of "
              + weight.layout().name()
              + ": some groups start within a scale's block or a byte; they are dequantized and"
              + " multiplied as floats");
      Matrix m = weight.matrix();
      MemorySegment floats =
          arena.allocate(Math.multiplyExact(Math.multiplyExact(rows, m.k()), Float.BYTES), 64);
      device.operations().dequantize(m, row0, rows, floats, Encoding.F32);
      List<Long> shape = List.of(rows, m.k());
      return LinearFactory.plain(new Tensor(weight.name(), DType.F32, shape, floats));
    }
  }

  private static Tensor part(Tensor bias, long first, long count, QuantizedTensor weight) {
    if (bias.shape().size() != 1 || bias.elements() != weight.shape().get(0)) {
      throw new GatunException(
          weight.name()
              + ": found bias '"
              + bias.name()
              + "' of shape "
              + bias.shape()
              + ", expected "
              + weight.shape().get(0)
              + " numbers");
    }
    int size = bias.dtype().bits() / 8;
    return new Tensor(
        bias.name(), bias.dtype(), List.of(count), bias.data().asSlice(first * size, count * size));
  }
}
