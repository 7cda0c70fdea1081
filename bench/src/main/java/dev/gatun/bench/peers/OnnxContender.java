package dev.gatun.bench.peers;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import dev.gatun.GatunException;
import dev.gatun.bench.onnx.MatMulModel;
import dev.gatun.bench.onnx.OnnxModel;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * The same product as an operator of ONNX Runtime. All copies stand in one model, so that what a
 * call of the engine costs is shared by them.
 */
final class OnnxContender implements Contender {
  private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
  private final OrtSession session;
  private final String operator;
  private final int copies;
  private final int k;

  /** The operator of a work; empty when ONNX Runtime has none. */
  static Optional<MatMulModel> model(RandomLayer layer) {
    Work work = layer.work();
    long n = layer.n();
    long k = layer.k();
    long group = work.group();
    return switch (work) {
      case INT4_G32, INT4_G128, INT8_G32 -> {
        long bits = work.encoding().bits();
        // Without zero points they are 8 and 128, as ours. Accuracy level 4: x is quantized to
        // int8, as ours.
        yield Optional.of(
            new MatMulModel("MatMulNBits", MatMulModel.MICROSOFT)
                .constant(
                    "w", MatMulModel.UINT8, List.of(n, k / group, group * bits / 8), layer.codes())
                .constant("scales", OnnxModel.FLOAT, List.of(n * k / group), layer.scaleBytes())
                .attribute("N", n)
                .attribute("K", k)
                .attribute("bits", bits)
                .attribute("block_size", group)
                .attribute("accuracy_level", 4));
      }
      case INT8_ROW ->
          Optional.of(
              new MatMulModel("DynamicQuantizeMatMul", MatMulModel.MICROSOFT)
                  .constant("w", MatMulModel.INT8, List.of(k, n), layer.transposedCodes())
                  .constant("scales", OnnxModel.FLOAT, List.of(n), layer.scaleBytes()));
      case NF4 ->
          Optional.of(
              new MatMulModel("MatMulBnb4", MatMulModel.MICROSOFT)
                  .constant("w", MatMulModel.UINT8, List.of(n * k / 2), layer.codes())
                  .constant("scales", OnnxModel.FLOAT, List.of(n * k / group), layer.scaleBytes())
                  .attribute("N", n)
                  .attribute("K", k)
                  .attribute("block_size", group)
                  .attribute("quant_type", 1));
      case F32 ->
          Optional.of(
              new MatMulModel("MatMul", "")
                  .constant("w", OnnxModel.FLOAT, List.of(k, n), layer.transposedCodes()));
      default -> Optional.empty();
    };
  }

  /** Writes the model to a temporary file and opens it. */
  OnnxContender(RandomLayer layer, MatMulModel model, int threads, int copies) {
    this.operator = model.operator();
    this.copies = copies;
    this.k = layer.k();
    Path file = temporary();
    try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
      model.write(file, copies, layer.n(), k);
      options.setIntraOpNumThreads(threads);
      options.setInterOpNumThreads(1);
      options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.ALL_OPT);
      session = environment.createSession(file.toString(), options);
    } catch (OrtException e) {
      throw failed(e);
    } finally {
      delete(file);
    }
  }

  private static Path temporary() {
    try {
      return Files.createTempFile("gatun-peer-", ".onnx");
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static void delete(Path file) {
    try {
      Files.deleteIfExists(file);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private GatunException failed(OrtException e) {
    return new GatunException("ONNX Runtime, " + operator + ": " + e.getMessage(), e);
  }

  @Override
  public String engine() {
    return "onnxruntime";
  }

  @Override
  public String kernel(int m) {
    return operator;
  }

  @Override
  public int copies() {
    return copies;
  }

  @Override
  public void run(MemorySegment x, int m) {
    multiply(x, m, false);
  }

  /** The first copy's output if it is to be kept, else nothing. */
  private float[] multiply(MemorySegment x, int m, boolean keep) {
    var floats =
        x.asSlice(0, (long) m * k * Float.BYTES)
            .asByteBuffer()
            .order(ByteOrder.nativeOrder())
            .asFloatBuffer();
    try (OnnxTensor input = OnnxTensor.createTensor(environment, floats, new long[] {m, k});
        OrtSession.Result result = session.run(Map.of("x", input))) {
      float[] output = {};
      if (keep) {
        var values = ((OnnxTensor) result.get(0)).getFloatBuffer();
        output = new float[values.remaining()];
        values.get(output);
      }
      return output;
    } catch (OrtException e) {
      throw failed(e);
    }
  }

  @Override
  public float[] output(MemorySegment x, int m) {
    return multiply(x, m, true);
  }

  @Override
  public void close() {
    try {
      session.close();
    } catch (OrtException e) {
      throw failed(e);
    }
  }
}
