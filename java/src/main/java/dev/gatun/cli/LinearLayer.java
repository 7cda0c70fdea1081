package dev.gatun.cli;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** {@code gatun linear}: one layer of a checkpoint on one input. */
@CommandLine.Command(
    name = "linear",
    description =
        "Run one linear layer: y = x · Wᵀ + b for the tensor 'x' of a file; writes the tensor 'y' as F32.")
public final class LinearLayer implements Command {
  private static final String X = "x";
  private static final String Y = "y";

  @Mixin private CommonOptions common = new CommonOptions();
  @Mixin private DeviceOptions device = new DeviceOptions();

  @Parameters(
      index = "0",
      paramLabel = "IN",
      description = "A checkpoint, a shard index or their directory.")
  private Path checkpointPath = Path.of("");

  @Parameters(
      index = "1",
      paramLabel = "LAYER",
      description = "The layer's plain name, with or without .weight.")
  private String layer = "";

  @Option(
      names = "--input",
      required = true,
      paramLabel = "X",
      description = "A safetensors file with the tensor 'x': F32, F16 or BF16, [..., K].")
  private Path input = Path.of("");

  @Option(
      names = {"-o", "--output"},
      required = true,
      paramLabel = "Y",
      description = "The safetensors file to write, with the tensor 'y': F32, [..., N].")
  private Path output = Path.of("");

  @Option(
      names = "--compute",
      paramLabel = "C",
      defaultValue = "F32",
      description =
          "What the multiply is done in: ${COMPLETION-CANDIDATES}; default: ${DEFAULT-VALUE}.")
  private Compute compute = Compute.F32;

  /** For {@link java.util.ServiceLoader}. */
  public LinearLayer() {}

  @Override
  public Integer call() {
    try (Device on = device.open();
        Checkpoint checkpoint = Checkpoint.open(checkpointPath);
        SafetensorsFile file = SafetensorsFile.open(input)) {
      List<Path> inputs = new ArrayList<>(checkpoint.files());
      inputs.add(input);
      Outputs.notAnInput(output, inputs);
      Tensor x = file.tensors().get(X);
      if (x == null) {
        throw new GatunException(
            input
                + ": tensor '"
                + X
                + "': found no such tensor, expected it beside "
                + file.tensors().keySet());
      }
      try (Linear linear = checkpoint.linear(layer, compute, on)) {
        run(linear, x, on);
      }
    }
    return 0;
  }

  private void run(Linear linear, Tensor x, Device on) {
    Encoding type = typeOf(x);
    long k = linear.inFeatures();
    List<Long> shape = x.shape();
    if (shape.isEmpty() || shape.getLast() != k) {
      throw new GatunException(
          input
              + ": tensor '"
              + X
              + "': found shape "
              + shape
              + ", expected [..., "
              + k
              + "] for layer '"
              + layer
              + "'");
    }
    List<Long> yShape = new ArrayList<>(shape.subList(0, shape.size() - 1));
    long m = yShape.stream().reduce(1L, Math::multiplyExact);
    yShape.add(linear.outFeatures());
    SafetensorsWriter.Entry entry = new SafetensorsWriter.Entry(Y, DType.F32, yShape);
    Optional<RunningKernel> ran = Optional.empty();
    try (Arena arena = Arena.ofShared();
        SafetensorsWriter out = SafetensorsWriter.create(output, List.of(entry), Map.of())) {
      MemorySegment y =
          arena.allocate(Math.max(1, entry.byteSize()), 64).asSlice(0, entry.byteSize());
      if (m > 0) {
        // A tensor of a file need not be aligned.
        MemorySegment aligned =
            arena.allocate(Math.max(1, x.data().byteSize()), 64).copyFrom(x.data());
        linear.forward(aligned, type, k, m, y, Encoding.F32, linear.outFeatures());
        ran = Optional.of(RunningKernel.of(linear, m, on));
      }
      out.write(Y, y);
      out.commit();
    }
    ran.ifPresent(kernel -> warn(linear, kernel, on));
    report(linear, m, ran);
  }

  private Encoding typeOf(Tensor x) {
    return x.dtype()
        .encoding()
        .filter(Encoding::isPlain)
        .orElseThrow(
            () ->
                new GatunException(
                    input
                        + ": tensor '"
                        + X
                        + "': found type "
                        + x.dtype()
                        + ", expected F32, F16 or BF16"));
  }

  private void warn(Linear linear, RunningKernel ran, Device on) {
    if (linear.compute() != compute) {
      common
          .err()
          .println(
              "gatun: warning: nothing multiplies layer '"
                  + layer
                  + "' with compute "
                  + compute
                  + "; it was dequantized and multiplied with "
                  + linear.compute());
    }
    if (device.backend().isPresent() && !ran.backend().equals(on.name())) {
      common
          .err()
          .println(
              "gatun: warning: "
                  + on.name()
                  + " has no kernel for layer '"
                  + layer
                  + "'; "
                  + ran.backend()
                  + " ran "
                  + ran.kernel());
    }
    common.err().flush();
  }

  private void report(Linear linear, long m, Optional<RunningKernel> ran) {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("layer", layer);
    json.put("m", m);
    json.put("n", linear.outFeatures());
    json.put("k", linear.inFeatures());
    json.put("compute", Words.of(linear.compute()));
    json.put("backend", ran.map(RunningKernel::backend).orElse(null));
    json.put("kernel", ran.map(RunningKernel::kernel).orElse(null));
    json.put("output", output.toString());
    if (common.json()) {
      common.printJson(json);
    } else {
      common
          .out()
          .println(
              output
                  + ": y ["
                  + m
                  + ", "
                  + linear.outFeatures()
                  + "] of layer '"
                  + layer
                  + "', K = "
                  + linear.inFeatures()
                  + ran.map(r -> ", " + r.backend() + " " + r.kernel()).orElse(""));
    }
  }
}
