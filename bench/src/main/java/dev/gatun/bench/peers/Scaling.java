package dev.gatun.bench.peers;

import com.sun.management.OperatingSystemMXBean;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.bench.Probe;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.management.ManagementFactory;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * What several threads are worth to a layer of the native backend: its time on one and on all of
 * them, what two callers get out of the pool together, and what the pool costs when nobody calls.
 */
final class Scaling implements AutoCloseable {
  private static final int FEWEST_SAMPLES = 5;

  /** Of callers that loop; long beside a call, short beside what else happens on the machine. */
  private static final double WINDOW_SECONDS = 0.2;

  private static final int CALLERS = 2;
  private static final long IDLE_MILLIS = 1000;

  /** After a call, until threads that wait for the next one must be asleep. */
  private static final long SETTLE_MILLIS = 50;

  /**
   * One layer and number of rows.
   *
   * @param one milliseconds on one thread
   * @param all on all threads
   * @param peakScaling how much faster a loop that only multiplies in registers is on all threads
   *     than on one: what the machine offers
   * @param alone calls a second of one caller that has all threads
   * @param together of {@link #CALLERS} callers that have all threads each, the sum
   */
  record Row(
      Work work, int m, double one, double all, double peakScaling, double alone, double together) {
    double speedup() {
      return one / all;
    }

    /** Percent of the throughput that is lost when callers share the pool; negative: gained. */
    double loss() {
      return 100 * (1 - together / alone);
    }

    Map<String, Object> toJson() {
      Map<String, Object> json = new LinkedHashMap<>();
      json.put("work", work.label());
      json.put("m", m);
      json.put("msOneThread", one);
      json.put("msAllThreads", all);
      json.put("speedup", speedup());
      json.put("peakSpeedup", peakScaling);
      json.put("callsPerSecondAlone", alone);
      json.put("callsPerSecondTogether", together);
      json.put("lossPercent", loss());
      return json;
    }
  }

  private final Probe probe = Probe.open();
  private final ExecutorService callers = Executors.newFixedThreadPool(CALLERS);
  private final int threads;
  private final double seconds;

  /**
   * A measurement.
   *
   * @param seconds for the times of a layer on one and on all threads; as much again for the
   *     callers
   */
  Scaling(int threads, double seconds) {
    this.threads = threads;
    this.seconds = seconds;
  }

  /** Measures one layer. */
  List<Row> measure(RandomLayer layer, List<Integer> rows) {
    List<Row> measured = new ArrayList<>();
    int most = rows.stream().max(Integer::compare).orElseThrow();
    try (Arena arena = Arena.ofShared();
        Device single = Device.of("native", 1);
        Device whole = Device.of("native", threads);
        Linear one = Linear.of(layer.tensor(arena), null, layer.work().compute(), single);
        Linear all = Linear.of(layer.tensor(arena), null, layer.work().compute(), whole)) {
      MemorySegment x = arena.allocate((long) most * layer.k() * Float.BYTES, 64);
      x.copyFrom(MemorySegment.ofArray(Peers.random(most * layer.k())));
      MemorySegment[] y = new MemorySegment[CALLERS];
      for (int i = 0; i < CALLERS; i++) {
        y[i] = arena.allocate((long) most * layer.n() * Float.BYTES, 64);
      }
      for (int m : rows) {
        measured.add(measure(layer.work(), m, one, all, x, y));
      }
    }
    return measured;
  }

  private Row measure(
      Work work, int m, Linear one, Linear all, MemorySegment x, MemorySegment[] y) {
    double bestOne = Double.POSITIVE_INFINITY;
    double bestAll = Double.POSITIVE_INFINITY;
    double peakOne = 0;
    double peakAll = 0;
    long end = System.nanoTime() + (long) (seconds * 1e9);
    for (int sample = 0; sample < FEWEST_SAMPLES || System.nanoTime() < end; sample++) {
      peakOne = Math.max(peakOne, probe.peak(work.peak(), 1, 1));
      peakAll = Math.max(peakAll, probe.peak(work.peak(), threads, 1));
      bestOne = Math.min(bestOne, time(one, x, m, y[0]));
      bestAll = Math.min(bestAll, time(all, x, m, y[0]));
    }
    double alone = 0;
    double together = 0;
    int windows = (int) Math.max(1, seconds / (2 * WINDOW_SECONDS));
    for (int window = 0; window < windows; window++) {
      alone = Math.max(alone, throughput(1, all, x, m, y));
      together = Math.max(together, throughput(CALLERS, all, x, m, y));
    }
    return new Row(work, m, bestOne, bestAll, peakAll / peakOne, alone, together);
  }

  /** Milliseconds of a call; one before it wakes the threads. */
  private static double time(Linear layer, MemorySegment x, int m, MemorySegment y) {
    layer.forward(x, m, y);
    long start = System.nanoTime();
    layer.forward(x, m, y);
    return (System.nanoTime() - start) * 1e-6;
  }

  /** Calls a second of so many callers, each with an output of its own. */
  private double throughput(int count, Linear layer, MemorySegment x, int m, MemorySegment[] y) {
    long start = System.nanoTime();
    long end = start + (long) (WINDOW_SECONDS * 1e9);
    List<Callable<Double>> loops = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      MemorySegment own = y[i];
      loops.add(
          () -> {
            long calls = 0;
            do {
              layer.forward(x, m, own);
              calls++;
            } while (System.nanoTime() < end);
            return calls / ((System.nanoTime() - start) * 1e-9);
          });
    }
    double sum = 0;
    try {
      for (Future<Double> loop : callers.invokeAll(loops)) {
        sum += loop.get();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new GatunException("interrupted", e);
    } catch (ExecutionException e) {
      throw new GatunException("a caller failed: " + e.getCause(), e);
    }
    return sum;
  }

  /**
   * Milliseconds of processor time that the process took in a second after a call in which nobody
   * called: the least of three, since the JVM has work of its own.
   */
  double idle(RandomLayer layer) {
    double least = Double.POSITIVE_INFINITY;
    OperatingSystemMXBean system =
        (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    try (Arena arena = Arena.ofShared();
        Device whole = Device.of("native", threads);
        Linear all = Linear.of(layer.tensor(arena), null, layer.work().compute(), whole)) {
      MemorySegment x = arena.allocate((long) layer.k() * Float.BYTES, 64);
      MemorySegment y = arena.allocate((long) layer.n() * Float.BYTES, 64);
      for (int i = 0; i < 3; i++) {
        all.forward(x, 1, y);
        Thread.sleep(SETTLE_MILLIS);
        long before = system.getProcessCpuTime();
        Thread.sleep(IDLE_MILLIS);
        least = Math.min(least, (system.getProcessCpuTime() - before) * 1e-6);
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new GatunException("interrupted", e);
    }
    return least;
  }

  @Override
  public void close() {
    callers.shutdown();
    probe.close();
  }
}
