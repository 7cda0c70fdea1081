package dev.gatun.layout;

import dev.gatun.Compute;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.CudaBackend;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.Operation;
import java.util.Optional;

/**
 * The entry point of {@code linear} on LLM.int8() weights with compute type I8: columns of x with
 * outliers are multiplied in floats, the rest in integers; see {@link OutlierBackend}. With other
 * compute types the weight is multiplied as every other one.
 *
 * @param backend that multiplies the integers
 */
record OutlierLinear(String backend) implements EntryPoint {
  @Override
  public String name() {
    return "llm_int8.linear";
  }

  @Override
  public Operation operation() {
    return Operation.LINEAR;
  }

  @Override
  public Optional<String> refuses(
      Backend backend, Matrix matrix, long m, Optional<Compute> compute) {
    if (!compute.equals(Optional.of(Compute.I8))) {
      return Optional.of("outliers are taken apart with compute I8 only");
    }
    Optional<String> why = backend.refuses(Operation.LINEAR, matrix, compute);
    return why.isPresent()
        ? why
        : backend.refuses(Operation.LINEAR, matrix, Optional.of(Compute.F32));
  }

  @Override
  public String kernel(Backend backend, Matrix matrix, long m, Optional<Compute> compute) {
    return backend.kernel(operation(), matrix.encoding(), compute).orElse(name()) + "+outliers";
  }

  @Override
  public Backend bind(Backend backend) {
    return backend instanceof CudaBackend cuda
        ? cuda.withOutliers(OutlierBackend.THRESHOLD)
        : new OutlierBackend(backend);
  }
}
