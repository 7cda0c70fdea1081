package dev.gatun.kernel;

import java.util.concurrent.atomic.AtomicLong;

/**
 * Counts who is using a resource, so that closing it waits for nobody and takes nothing away from
 * anybody: the last user frees it. Allocates nothing.
 */
final class UseCount {
  private static final long CLOSED = 1L << 62;

  private final String what;
  private final Runnable free;

  /** How many users there are, plus {@link #CLOSED} once closed; negative once freed. */
  private final AtomicLong users = new AtomicLong();

  UseCount(String what, Runnable free) {
    this.what = what;
    this.free = free;
  }

  /** Every successful call is followed by one of {@link #leave}. */
  void enter() {
    long count = users.incrementAndGet();
    if (count < 0 || count >= CLOSED) {
      leave();
      throw new IllegalStateException("this " + what + " is closed");
    }
  }

  void leave() {
    if (users.decrementAndGet() == CLOSED) {
      freeOnce();
    }
  }

  /** A second call does nothing. */
  void close() {
    long count = users.get();
    while (count >= 0 && count < CLOSED) {
      if (users.compareAndSet(count, count + CLOSED)) {
        if (count == 0) {
          freeOnce();
        }
        return;
      }
      count = users.get();
    }
  }

  /**
   * Several threads may find that nobody is left; the one that moves the count below zero frees.
   */
  private void freeOnce() {
    if (users.compareAndSet(CLOSED, Long.MIN_VALUE)) {
      free.run();
    }
  }
}
