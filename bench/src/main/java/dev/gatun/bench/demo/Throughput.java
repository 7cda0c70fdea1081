package dev.gatun.bench.demo;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Runs an encoder over batches, one batch a thread at a time, and measures how many sentences a
 * second it encodes.
 */
final class Throughput {
  private final ExecutorService workers;
  private final List<Batch> batches;
  private final int sentences;

  /**
   * A measurement over these batches.
   *
   * @param workers with as many threads as there will be callers
   */
  Throughput(ExecutorService workers, List<Batch> batches) {
    this.workers = workers;
    // The longest first: what is left at the end is short, and few threads wait for it.
    this.batches = batches.reversed();
    this.sentences = batches.stream().mapToInt(Batch::size).sum();
  }

  /** How many sentences one pass encodes. */
  int sentences() {
    return sentences;
  }

  /** Every batch's embeddings, in the order of the batches. */
  static List<float[]> encodeAll(Encoder encoder, List<Batch> batches, ExecutorService workers) {
    List<Future<float[]>> running = new ArrayList<>();
    for (Batch batch : batches) {
      running.add(workers.submit(() -> encoder.encode(batch)));
    }
    return running.stream().map(Throughput::result).toList();
  }

  /**
   * Sentences a second over at least so many seconds of whole passes.
   *
   * @param callers threads that hand batches to the encoder at the same time
   */
  double measure(Encoder encoder, int callers, double seconds) {
    long start = System.nanoTime();
    long passes = 0;
    double elapsed;
    do {
      pass(encoder, callers);
      passes++;
      elapsed = (System.nanoTime() - start) * 1e-9;
    } while (elapsed < seconds);
    return passes * sentences / elapsed;
  }

  private void pass(Encoder encoder, int callers) {
    AtomicInteger next = new AtomicInteger();
    List<Future<?>> running = new ArrayList<>();
    for (int i = 0; i < callers; i++) {
      running.add(
          workers.submit(
              () -> {
                for (int at = next.getAndIncrement();
                    at < batches.size();
                    at = next.getAndIncrement()) {
                  encoder.encode(batches.get(at));
                }
              }));
    }
    running.forEach(Throughput::result);
  }

  private static <T> T result(Future<T> future) {
    try {
      return future.get();
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new IllegalStateException("interrupted", e);
    } catch (ExecutionException e) {
      if (e.getCause() instanceof RuntimeException cause) {
        throw cause;
      }
      throw new IllegalStateException(e.getCause());
    }
  }
}
