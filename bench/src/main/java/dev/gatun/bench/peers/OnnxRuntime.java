package dev.gatun.bench.peers;

import org.jspecify.annotations.Nullable;

/** ONNX Runtime's CPU operators. */
public final class OnnxRuntime implements PeerEngine {
  /** Made by the service loader. */
  public OnnxRuntime() {}

  @Override
  public String name() {
    return "onnxruntime";
  }

  @Override
  public @Nullable Contender open(RandomLayer layer, int threads, int copies, int mostRows) {
    return OnnxContender.model(layer)
        .map(model -> new OnnxContender(layer, model, threads, copies))
        .orElse(null);
  }
}
