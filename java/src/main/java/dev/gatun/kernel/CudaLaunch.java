package dev.gatun.kernel;

import dev.gatun.Compute;
import dev.gatun.bindings.gatun_cuda_h;
import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/** The functions of libgatun_cuda that multiply, and which of them a call is for. */
final class CudaLaunch {
  private CudaLaunch() {}

  /** Multiples of one scale are exact in floats. */
  private static Compute compute(LinearCall<?> call) {
    return call.isRounded() ? Compute.F32 : call.compute();
  }

  /**
   * Asks for the bytes of memory that a product needs.
   *
   * @param answer where they are written
   * @return the status
   */
  static int workspace(CudaPacked weight, LinearCall<?> call, MemorySegment answer) {
    CudaActivations activations = weight.activations();
    MemorySegment rounding = activations.x();
    MemorySegment packed = weight.struct();
    long m = call.m();
    if (rounding != null) {
      return gatun_cuda_h.gatun_cuda_linear_static_workspace(
          packed, rounding, activations.yOrNull(), call.yType().id(), m, answer);
    }
    return activations.takesApart(call)
        ? gatun_cuda_h.gatun_cuda_linear_outliers_workspace(packed, m, answer)
        : gatun_cuda_h.gatun_cuda_linear_workspace(packed, m, compute(call).id(), answer);
  }

  /**
   * Gives a product to a stream.
   *
   * @param call whose types, rows, epilogue and compute type are meant
   * @param on where its operands lie on the device
   * @return the status
   */
  static int linear(
      int device,
      CudaPacked weight,
      LinearCall<?> call,
      CudaOperands on,
      long workspace,
      long workspaceBytes,
      long stream) {
    CudaActivations activations = weight.activations();
    @Nullable MemorySegment rounding = activations.x();
    MemorySegment packed = weight.struct();
    int xType = call.xType().id();
    int yType = call.yType().id();
    int activation = call.epilogue().activation().id();
    int combine = call.epilogue().combine().id();
    long m = call.m();
    if (rounding != null) {
      return gatun_cuda_h.gatun_cuda_linear_static(
          device,
          packed,
          rounding,
          activations.yOrNull(),
          on.x,
          xType,
          on.ldx,
          m,
          on.y,
          yType,
          on.ldy,
          on.bias,
          on.multiplier,
          activation,
          combine,
          on.other,
          on.ldOther,
          workspace,
          workspaceBytes,
          stream);
    }
    if (activations.takesApart(call)) {
      return gatun_cuda_h.gatun_cuda_linear_outliers(
          device,
          packed,
          activations.threshold(),
          on.x,
          xType,
          on.ldx,
          m,
          on.y,
          yType,
          on.ldy,
          on.bias,
          on.multiplier,
          activation,
          combine,
          on.other,
          on.ldOther,
          workspace,
          workspaceBytes,
          stream);
    }
    if (on.xScales != 0) {
      return gatun_cuda_h.gatun_cuda_linear_codes(
          device,
          packed,
          on.x,
          xType,
          on.ldx,
          m,
          on.xScales,
          call.xScaleRowStride(),
          call.xScaleColumnStride(),
          on.y,
          yType,
          on.ldy,
          on.bias,
          activation,
          combine,
          on.other,
          on.ldOther,
          call.compute().id(),
          workspace,
          workspaceBytes,
          stream);
    }
    return gatun_cuda_h.gatun_cuda_linear(
        device,
        packed,
        on.x,
        xType,
        on.ldx,
        m,
        on.y,
        yType,
        on.ldy,
        on.bias,
        on.multiplier,
        activation,
        combine,
        on.other,
        on.ldOther,
        compute(call).id(),
        workspace,
        workspaceBytes,
        stream);
  }

  /** {@link #workspace(CudaPacked, LinearCall, MemorySegment)} of experts. */
  static int workspace(CudaGroup group, LinearCall<?> call, MemorySegment answer) {
    return gatun_cuda_h.gatun_cuda_linear_grouped_workspace(
        group.struct(), call.m(), call.compute().id(), answer);
  }

  /**
   * Gives a product by experts to a stream.
   *
   * @param offsets their address on the device
   * @return the status
   */
  static int linear(
      int device,
      CudaGroup group,
      LinearCall<?> call,
      CudaOperands on,
      long offsets,
      long workspace,
      long workspaceBytes,
      long stream) {
    return gatun_cuda_h.gatun_cuda_linear_grouped(
        device,
        group.struct(),
        offsets,
        on.x,
        call.xType().id(),
        on.ldx,
        call.m(),
        on.y,
        call.yType().id(),
        on.ldy,
        call.epilogue().activation().id(),
        call.epilogue().combine().id(),
        on.other,
        on.ldOther,
        call.compute().id(),
        workspace,
        workspaceBytes,
        stream);
  }
}
