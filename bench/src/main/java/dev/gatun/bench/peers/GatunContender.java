package dev.gatun.bench.peers;

import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.layout.Explanation;
import dev.gatun.layout.LayoutRegistry;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;

/** Our own layer on one backend. */
final class GatunContender implements Contender {
  private final Arena arena = Arena.ofShared();
  private final Device device;
  private final List<Linear> layers = new ArrayList<>();
  private final MemorySegment y;
  private final int n;

  /**
   * Packs the copies.
   *
   * @throws GatunException when the backend is not available, or has no kernel for the work
   */
  GatunContender(RandomLayer layer, String backend, int threads, int copies, int mostRows) {
    n = layer.n();
    device = Device.of(backend, threads);
    boolean done = false;
    try (Arena source = Arena.ofShared()) {
      QuantizedTensor weight = layer.tensor(source);
      Explanation explanation =
          LayoutRegistry.get().explain(weight, 1, device, layer.work().compute());
      if (explanation.runs().filter(c -> c.backend().equals(backend)).isEmpty()) {
        throw new GatunException(
            backend
                + " has no kernel for linear of "
                + layer.work().encoding()
                + " with compute "
                + layer.work().compute()
                + " ("
                + String.join("; ", explanation.lines())
                + ")");
      }
      for (int i = 0; i < copies; i++) {
        layers.add(Linear.of(weight, null, layer.work().compute(), device));
      }
      y = arena.allocate((long) mostRows * n * Float.BYTES, 64);
      done = true;
    } finally {
      if (!done) {
        close();
      }
    }
  }

  @Override
  public String engine() {
    return "gatun " + device.name();
  }

  @Override
  public String kernel(int m) {
    return layers.getFirst().kernel(m);
  }

  @Override
  public int copies() {
    return layers.size();
  }

  @Override
  public void run(MemorySegment x, int m) {
    for (int i = layers.size() - 1; i >= 0; i--) {
      layers.get(i).forward(x, m, y);
    }
  }

  @Override
  public float[] output(MemorySegment x, int m) {
    run(x, m);
    float[] values = new float[m * n];
    MemorySegment.copy(y, ValueLayout.JAVA_FLOAT, 0, values, 0, values.length);
    return values;
  }

  @Override
  public void close() {
    layers.forEach(Linear::close);
    device.close();
    arena.close();
  }
}
