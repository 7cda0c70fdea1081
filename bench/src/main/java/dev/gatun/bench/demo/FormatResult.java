package dev.gatun.bench.demo;

import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * What the demo found out about one format.
 *
 * @param fileBytes of the checkpoint, embeddings and all
 * @param linearBytes of what stands for the weights of the linear layers in it
 * @param cosines with ONNX Runtime's embeddings: the lowest of all backends that ran
 * @param runs by backend; no entry for one that is not available
 * @param onnxRate ONNX Runtime's sentences a second, with the original floats
 */
record FormatResult(
    Format format,
    long fileBytes,
    long linearBytes,
    Cosines cosines,
    Map<String, Run> runs,
    double onnxRate) {
  /**
   * One backend's part.
   *
   * @param rate sentences a second
   * @param compute what the fastest run within the bar multiplied in
   * @param kernel that the widest layer ran
   */
  record Run(double rate, String compute, String kernel) {}

  /** Whether every sentence stays as near to the original as it must. */
  boolean passes() {
    return cosines.worst() >= format.bar();
  }

  /** Size of the file in MiB. */
  double mib() {
    return fileBytes / (double) (1 << 20);
  }

  /** The format's element of {@code --json}. */
  Map<String, Object> toJson() {
    Map<String, @Nullable Object> rates = new LinkedHashMap<>();
    Map<String, @Nullable Object> computes = new LinkedHashMap<>();
    for (String backend : Demo.BACKENDS) {
      Run run = runs.get(backend);
      rates.put(backend, run == null ? null : run.rate());
      computes.put(backend, run == null ? null : run.compute());
    }
    rates.put("onnxruntime", onnxRate);
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("format", format.label());
    json.put("mib", mib());
    json.put("meanCosine", cosines.mean());
    json.put("worstCosine", cosines.worst());
    json.put("sentencesPerSecond", rates);
    json.put("compute", computes);
    return json;
  }
}
