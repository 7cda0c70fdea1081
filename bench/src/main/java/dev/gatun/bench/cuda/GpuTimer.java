package dev.gatun.bench.cuda;

import dev.gatun.kernel.CudaGraph;
import dev.gatun.kernel.CudaStream;
import java.util.Arrays;
import java.util.List;

/** Times work as it runs in a model: recorded as a graph, replayed, the device's own clock. */
final class GpuTimer {
  private static final int WARM = 3;
  private static final int ROUNDS = 15;

  private final CudaStream stream;

  GpuTimer(CudaStream stream) {
    this.stream = stream;
  }

  CudaStream stream() {
    return stream;
  }

  /**
   * The median time of one of the calls in microseconds, all of them recorded one after another.
   */
  double microseconds(List<Runnable> calls) {
    try (CudaGraph graph = stream.capture(() -> calls.forEach(Runnable::run))) {
      double[] times = new double[ROUNDS];
      for (int i = -WARM; i < ROUNDS; i++) {
        double ms = stream.milliseconds(() -> graph.launch(stream));
        if (i >= 0) {
          times[i] = ms * 1000 / calls.size();
        }
      }
      Arrays.sort(times);
      return times[ROUNDS / 2];
    }
  }
}
