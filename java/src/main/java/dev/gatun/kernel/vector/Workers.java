package dev.gatun.kernel.vector;

import dev.gatun.GatunException;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/**
 * A parallel loop that allocates nothing: the caller and its helpers take the units of a job one by
 * one. Helpers spin for a short while after a job, then sleep. One caller at a time has the
 * helpers; another one that comes meanwhile works alone.
 */
final class Workers implements AutoCloseable {
  /** Independent units of work. Which thread does a unit must not change its result. */
  interface Job {
    /**
     * Does one unit.
     *
     * @param worker 0 for the caller, 1 and more for helpers: whose working memory to use
     */
    void unit(int unit, int worker);
  }

  private static final int SPINS = 10_000;

  /** No helper may enter the job. Else: how many are in it. */
  private static final int SHUT = Integer.MIN_VALUE;

  private final Thread[] helpers;
  private final AtomicBoolean taken = new AtomicBoolean();
  private final AtomicInteger inside = new AtomicInteger(SHUT);
  private final AtomicInteger next = new AtomicInteger();
  private final AtomicReference<@Nullable Throwable> failure = new AtomicReference<>();
  private final AtomicInteger round = new AtomicInteger();
  private volatile boolean closed;

  // Written before `inside` opens, read by helpers after they have entered.
  private @Nullable Job job;
  private int units;
  private int allowed;

  /**
   * @param threads the caller's included
   */
  Workers(int threads) {
    helpers = new Thread[threads - 1];
    for (int i = 0; i < helpers.length; i++) {
      int worker = i + 1;
      helpers[i] =
          Thread.ofPlatform().daemon().name("gatun-vector-" + worker).unstarted(() -> help(worker));
      helpers[i].start();
    }
  }

  /** How many threads a job can have, the caller's included. */
  int threads() {
    return helpers.length + 1;
  }

  /** Some thread that is not the caller's; null when there are no helpers. */
  @Nullable Thread helper() {
    return helpers.length == 0 ? null : helpers[0];
  }

  /**
   * Does the units {@code 0 .. count-1} and returns when all are done.
   *
   * @param threads at most this many, the caller's included
   */
  void run(Job work, int count, int threads) {
    if (threads > 1 && count > 1 && helpers.length > 0 && taken.compareAndSet(false, true)) {
      try {
        together(work, count, threads);
      } finally {
        taken.set(false);
      }
      return;
    }
    for (int i = 0; i < count; i++) {
      work.unit(i, 0);
    }
  }

  private void together(Job work, int count, int threads) {
    job = work;
    units = count;
    allowed = threads - 1;
    next.set(0);
    inside.set(0);
    round.incrementAndGet();
    int wanted = Math.min(Math.min(threads, count) - 1, helpers.length);
    for (int i = 0; i < wanted; i++) {
      LockSupport.unpark(helpers[i]);
    }
    take(work, count, 0);
    int left = inside.addAndGet(SHUT);
    while (left != SHUT) {
      Thread.onSpinWait();
      left = inside.get();
    }
    job = null;
    Throwable thrown = failure.getAndSet(null);
    if (thrown instanceof RuntimeException e) {
      throw e;
    }
    if (thrown instanceof Error e) {
      throw e;
    }
    if (thrown != null) {
      throw new GatunException("vector: a worker failed: " + thrown, thrown);
    }
  }

  private void take(Job work, int count, int worker) {
    try {
      int i = next.getAndIncrement();
      while (i < count) {
        work.unit(i, worker);
        i = next.getAndIncrement();
      }
    } catch (Throwable t) {
      failure.compareAndSet(null, t);
      next.set(count); // the rest is not worth doing
    }
  }

  private void help(int worker) {
    int seen = 0;
    while (!closed) {
      int spins = 0;
      while (round.get() == seen && !closed) {
        if (spins < SPINS) {
          spins++;
          Thread.onSpinWait();
        } else {
          LockSupport.park(this);
        }
      }
      seen = round.get();
      if (enter()) {
        Job work = job;
        if (work != null && worker <= allowed) {
          take(work, units, worker);
        }
        inside.decrementAndGet();
      }
    }
  }

  private boolean enter() {
    int count = inside.get();
    while (count >= 0) {
      if (inside.compareAndSet(count, count + 1)) {
        return true;
      }
      count = inside.get();
    }
    return false;
  }

  /** Ends the helpers. A later job is done by its caller alone. */
  @Override
  public void close() {
    closed = true;
    for (Thread helper : helpers) {
      LockSupport.unpark(helper);
    }
  }
}
