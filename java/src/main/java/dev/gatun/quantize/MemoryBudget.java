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

  /**
   * The source's pages, the floats that they are turned to unless that is what they are, and the
   * codes made of these, which are half of them at most, nearly always.
   */
  static long cost(LayerWork item) {
    long floats = item instanceof LayerWork.Fresh ? 0 : item.floats();
    return item.bytes() + floats + item.floats() / 2;
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
