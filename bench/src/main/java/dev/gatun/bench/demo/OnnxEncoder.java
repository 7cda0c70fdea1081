package dev.gatun.bench.demo;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import dev.gatun.GatunException;
import java.nio.FloatBuffer;
import java.nio.LongBuffer;
import java.nio.file.Path;
import java.util.Map;

/** The same model in ONNX Runtime, in floats: what the demo measures itself against. */
final class OnnxEncoder implements Encoder {
  private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
  private final OrtSession session;
  private final int width;

  /**
   * Opens the model.
   *
   * @param threads of one operator
   */
  OnnxEncoder(Path onnx, int width, int threads) {
    this.width = width;
    try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
      options.setIntraOpNumThreads(threads);
      options.setInterOpNumThreads(1);
      options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.ALL_OPT);
      session = environment.createSession(onnx.toString(), options);
    } catch (OrtException e) {
      throw failed(e);
    }
  }

  @Override
  public int width() {
    return width;
  }

  @Override
  public float[] encode(Batch batch) {
    int rows = batch.size();
    int longest = batch.longest();
    LongBuffer ids = LongBuffer.allocate(rows * longest);
    LongBuffer mask = LongBuffer.allocate(rows * longest);
    LongBuffer types = LongBuffer.allocate(rows * longest);
    for (int i = 0; i < rows; i++) {
      long[] tokens = batch.tokens().get(i);
      for (int j = 0; j < tokens.length; j++) {
        ids.put(i * longest + j, tokens[j]);
        mask.put(i * longest + j, 1);
      }
    }
    long[] shape = {rows, longest};
    try (OnnxTensor idTensor = OnnxTensor.createTensor(environment, ids, shape);
        OnnxTensor maskTensor = OnnxTensor.createTensor(environment, mask, shape);
        OnnxTensor typeTensor = OnnxTensor.createTensor(environment, types, shape);
        OrtSession.Result result =
            session.run(
                Map.of(
                    "input_ids",
                    idTensor,
                    "attention_mask",
                    maskTensor,
                    "token_type_ids",
                    typeTensor))) {
      FloatBuffer states = ((OnnxTensor) result.get(0)).getFloatBuffer();
      float[] out = new float[rows * width];
      float[] sentence = new float[longest * width];
      for (int i = 0; i < rows; i++) {
        states.get(i * longest * width, sentence);
        Elementwise.meanOfRows(sentence, 0, batch.tokens().get(i).length, width, out, i * width);
        Elementwise.toUnitLength(out, i * width, width);
      }
      return out;
    } catch (OrtException e) {
      throw failed(e);
    }
  }

  private static GatunException failed(OrtException e) {
    return new GatunException("ONNX Runtime: " + e.getMessage(), e);
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
