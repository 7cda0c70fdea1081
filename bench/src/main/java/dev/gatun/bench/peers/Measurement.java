package dev.gatun.bench.peers;

import java.util.LinkedHashMap;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The best time of one layer.
 *
 * @param engine who multiplied
 * @param kernel with what
 * @param weightBytes of codes and scales
 * @param cold whether the weights came from memory rather than from a cache
 * @param ms milliseconds of one product
 * @param relativeError of the output from the exact one
 * @param peak what the multiply can do on this machine, G operations a second, in the same run; 0
 *     when unknown
 * @param readRate what memory can be read at, GB a second, in the same run
 * @param ratio the best peer's time over this one's: above 1 it is faster than every peer; NaN when
 *     there is no peer
 */
record Measurement(
    Work work,
    int m,
    int n,
    int k,
    String engine,
    String kernel,
    long weightBytes,
    boolean cold,
    double ms,
    double relativeError,
    double peak,
    double readRate,
    double ratio) {

  /** G operations a second, a multiplication and an addition being two. */
  double gflops() {
    return 2.0 * m * n * k / ms * 1e-6;
  }

  /** GB of the weight a second. */
  double weightGBps() {
    return weightBytes / ms * 1e-6;
  }

  /** Share of the multiply's peak. */
  double percentOfPeak() {
    return 100 * gflops() / peak;
  }

  /** Share of the read bandwidth. */
  double percentOfBandwidth() {
    return 100 * weightGBps() / readRate;
  }

  /** Operations for a byte of the weight. */
  double intensity() {
    return 2.0 * m * n * k / weightBytes;
  }

  /** An element of {@code --json}. */
  Map<String, @Nullable Object> toJson() {
    Map<String, @Nullable Object> json = new LinkedHashMap<>();
    json.put("work", work.label());
    json.put("m", m);
    json.put("n", n);
    json.put("k", k);
    json.put("engine", engine);
    json.put("kernel", kernel);
    json.put("cold", cold);
    json.put("ms", ms);
    json.put("gflops", gflops());
    json.put("weightGBps", weightGBps());
    json.put("percentOfPeak", finite(percentOfPeak()));
    json.put("percentOfBandwidth", finite(percentOfBandwidth()));
    json.put("ratioToBestPeer", finite(ratio));
    json.put("relativeError", relativeError);
    return json;
  }

  /** JSON has no NaN. */
  private static @Nullable Object finite(double value) {
    return Double.isFinite(value) ? value : null;
  }
}
