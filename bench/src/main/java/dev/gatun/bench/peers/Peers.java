package dev.gatun.bench.peers;

import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.bench.Probe;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.function.Consumer;
import org.jspecify.annotations.Nullable;

/**
 * Measures our layers and the peers' in turns, A B A B, with the machine's own limits probed
 * between them: machines drift, and only what was measured within the same moments can be compared.
 *
 * <p>Up to {@link #FEW_ROWS} rows a pass goes through copies of the weight that together exceed the
 * caches, as in a model that makes one token at a time. Every figure is the best of its samples.
 */
final class Peers {
  /** Up to this many rows reading the weight is what takes the time. */
  static final int FEW_ROWS = 8;

  /**
   * An output further off than this is not the same product. 8-bit activations cost about one
   * percent.
   */
  private static final double LARGEST_ERROR = 0.03;

  private static final int FEWEST_SAMPLES = 5;

  /**
   * Before each engine and each probe: the threads of the last one may still spin and take a core,
   * those of OpenMP for some 13 ms.
   */
  private static final long REST_MILLIS = 15;

  /**
   * What is to be measured.
   *
   * @param coldBytes that the copies of a weight take at least when it is read from memory
   * @param seconds for one work and number of rows, all engines together
   */
  record Plan(
      List<Work> works,
      List<Integer> rows,
      int n,
      int k,
      int threads,
      long coldBytes,
      double seconds) {
    Plan {
      works = List.copyOf(works);
      rows = List.copyOf(rows);
    }
  }

  /** An engine that could not take part, and why. */
  record Absence(String engine, Work work, String reason) {}

  /**
   * What was found.
   *
   * @param peaks by kind, G operations a second; 0 when the processor has no such instruction
   * @param peakNames the instruction by kind
   * @param readRate GB a second
   */
  record Result(
      Plan plan,
      List<Measurement> measurements,
      List<Absence> absences,
      Map<Probe.Peak, Double> peaks,
      Map<Probe.Peak, String> peakNames,
      double readRate) {}

  private final Plan plan;
  private final Probe probe;
  private final MemorySegment memory;
  private final Consumer<String> progress;
  private final List<Absence> absences = new ArrayList<>();
  private final Map<Probe.Peak, Double> peaks = new LinkedHashMap<>();
  private double readRate;

  private Peers(Plan plan, Probe probe, MemorySegment memory, Consumer<String> progress) {
    this.plan = plan;
    this.probe = probe;
    this.memory = memory;
    this.progress = progress;
  }

  /** Measures everything. */
  static Result run(Plan plan, Consumer<String> progress) {
    try (Probe probe = Probe.open();
        Arena arena = Arena.ofShared()) {
      MemorySegment memory = probe.allocate(plan.coldBytes(), arena);
      return new Peers(plan, probe, memory, progress).run();
    }
  }

  private Result run() {
    List<Measurement> measurements = new ArrayList<>();
    for (Work work : plan.works()) {
      if (work.group() > 0 && plan.k() % work.group() != 0) {
        absences.add(
            new Absence("all", work, "K = " + plan.k() + " is no multiple of " + work.group()));
        continue;
      }
      RandomLayer layer = new RandomLayer(work, plan.n(), plan.k());
      for (boolean cold : new boolean[] {true, false}) {
        List<Integer> rows = plan.rows().stream().filter(m -> m <= FEW_ROWS == cold).toList();
        if (!rows.isEmpty()) {
          measurements.addAll(measure(layer, rows, cold));
        }
      }
    }
    Map<Probe.Peak, String> names = new LinkedHashMap<>();
    for (Probe.Peak peak : Probe.Peak.values()) {
      peaks.merge(peak, probe.peak(peak, plan.threads(), 3), Math::max);
      names.put(peak, probe.peakName(peak));
    }
    return new Result(plan, measurements, absences, peaks, names, readRate);
  }

  private List<Measurement> measure(RandomLayer layer, List<Integer> rows, boolean cold) {
    progress.accept(
        layer.work().label()
            + ", "
            + (cold ? "weights from memory" : "many rows")
            + ": preparing the engines");
    int copies = cold ? Math.clamp(Math.ceilDiv(plan.coldBytes(), layer.byteSize()), 2, 4096) : 1;
    int mostRows = rows.stream().max(Integer::compare).orElseThrow();
    List<Contender> contenders = contenders(layer, copies, mostRows, cold);
    try (Arena arena = Arena.ofShared()) {
      float[] values = random(mostRows * layer.k());
      MemorySegment x = arena.allocate((long) values.length * Float.BYTES, 64);
      MemorySegment.copy(values, 0, x, ValueLayout.JAVA_FLOAT, 0, values.length);
      List<Measurement> measurements = new ArrayList<>();
      for (int m : rows) {
        progress.accept(layer.work().label() + ": M = " + m);
        measurements.addAll(measure(layer, contenders, values, x, m, cold));
      }
      return measurements;
    } finally {
      contenders.forEach(Contender::close);
    }
  }

  /** Every engine that can do the work; those that cannot are noted once. */
  private List<Contender> contenders(RandomLayer layer, int copies, int mostRows, boolean note) {
    List<Contender> contenders = new ArrayList<>();
    for (Device.Probe backend : Device.probe()) {
      if (backend.backend().equals("native") || backend.backend().equals("vector")) {
        add(
            contenders,
            "gatun " + backend.backend(),
            layer.work(),
            note,
            () -> new GatunContender(layer, backend.backend(), plan.threads(), copies, mostRows));
      }
    }
    for (PeerEngine engine : PeerEngine.all()) {
      add(
          contenders,
          engine.name(),
          layer.work(),
          note,
          () -> engine.open(layer, plan.threads(), copies, mostRows));
    }
    return contenders;
  }

  private void add(
      List<Contender> contenders,
      String engine,
      Work work,
      boolean note,
      java.util.function.Supplier<@Nullable Contender> open) {
    try {
      Contender contender = open.get();
      if (contender != null) {
        contenders.add(contender);
      } else if (note) {
        absences.add(new Absence(engine, work, "has no such operator"));
      }
    } catch (GatunException e) {
      if (note) {
        absences.add(new Absence(engine, work, String.valueOf(e.getMessage())));
      }
    }
  }

  private List<Measurement> measure(
      RandomLayer layer,
      List<Contender> contenders,
      float[] values,
      MemorySegment x,
      int m,
      boolean cold) {
    Work work = layer.work();
    double[] errors = new double[contenders.size()];
    double[] best = new double[contenders.size()];
    for (int i = 0; i < best.length; i++) {
      Contender contender = contenders.get(i);
      errors[i] = layer.relativeError(values, m, contender.output(x, m));
      contender.rest();
      if (!(errors[i] <= LARGEST_ERROR)) {
        throw new GatunException(
            contender.engine()
                + ", "
                + contender.kernel(m)
                + ", "
                + work.label()
                + ", M = "
                + m
                + ": found outputs that are off by "
                + errors[i]
                + ", expected at most "
                + LARGEST_ERROR);
      }
      best[i] = Double.POSITIVE_INFINITY;
    }
    double peak = 0;
    double read = 0;
    long end = System.nanoTime() + (long) (plan.seconds() * 1e9);
    for (int sample = 0; sample < FEWEST_SAMPLES || System.nanoTime() < end; sample++) {
      rest();
      peak = Math.max(peak, probe.peak(work.peak(), plan.threads(), 1));
      if (cold) {
        read = Math.max(read, probe.read(memory, plan.threads(), 1));
      }
      for (int i = 0; i < best.length; i++) {
        best[i] = Math.min(best[i], sample(contenders.get(i), x, m));
      }
    }
    peaks.merge(work.peak(), peak, Math::max);
    readRate = Math.max(readRate, read);
    List<Measurement> measurements = new ArrayList<>();
    for (int i = 0; i < best.length; i++) {
      Contender c = contenders.get(i);
      measurements.add(
          new Measurement(
              work,
              m,
              layer.n(),
              layer.k(),
              c.engine(),
              c.kernel(m),
              layer.byteSize(),
              cold,
              best[i],
              errors[i],
              peak,
              cold ? read : Double.NaN,
              bestPeer(contenders, best) / best[i]));
    }
    return measurements;
  }

  /** The time of the fastest engine that is not ours; NaN when there is none. */
  private static double bestPeer(List<Contender> contenders, double[] times) {
    double best = Double.NaN;
    for (int i = 0; i < times.length; i++) {
      if (!contenders.get(i).engine().startsWith("gatun")) {
        best = Double.isNaN(best) ? times[i] : Math.min(best, times[i]);
      }
    }
    return best;
  }

  /** Milliseconds of one product; a first pass wakes the threads and is not timed. */
  private static double sample(Contender contender, MemorySegment x, int m) {
    rest();
    contender.run(x, m);
    long start = System.nanoTime();
    contender.run(x, m);
    double ms = (System.nanoTime() - start) * 1e-6 / contender.copies();
    contender.rest();
    return ms;
  }

  private static void rest() {
    try {
      Thread.sleep(REST_MILLIS);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new GatunException("interrupted", e);
    }
  }

  /** Floats between -1 and 1. */
  static float[] random(int count) {
    SplittableRandom random = new SplittableRandom(11);
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) (2 * random.nextDouble() - 1);
    }
    return values;
  }
}
