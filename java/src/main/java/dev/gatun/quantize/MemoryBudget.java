package dev.gatun.quantize;

/**
 * Lets as many layers be worked on at once as fit into twice the largest one: a large layer runs
 * alone, small ones side by side.
 */
final class MemoryBudget {
  private final long limit;
  private long used;

  /**
   * @param limit bytes that may be in use at once
   */
  MemoryBudget(long limit) {
    this.limit = limit;
  }

  /** The source's pages and the codes made of them, at most half of the floats, nearly always. */
  static long cost(LayerWork item) {
    return item.bytes() + item.floats() / 2;
  }

  /**
   * Waits until so many bytes are free; what exceeds the limit alone runs when nothing else does.
   */
  synchronized void acquire(long bytes) throws InterruptedException {
    while (used > 0 && bytes > limit - used) {
      wait();
    }
    used += bytes;
  }

  synchronized void release(long bytes) {
    used -= bytes;
    notifyAll();
  }
}
