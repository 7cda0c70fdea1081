package dev.gatun.kernel;

import java.util.concurrent.atomic.AtomicReferenceArray;
import java.util.function.Consumer;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * Working memory that callers find again, so that a warm call allocates nothing. Up to as many
 * callers at once as it keeps; others make their own.
 */
public final class Pool<T> {
  private static final int KEPT = 16;

  private final AtomicReferenceArray<@Nullable T> kept = new AtomicReferenceArray<>(KEPT);
  private final Supplier<T> make;

  /**
   * An empty pool.
   *
   * @param make what a caller gets when nothing is kept
   */
  public Pool(Supplier<T> make) {
    this.make = make;
  }

  /** Working memory that is nobody else's until it is given back. */
  public T take() {
    for (int i = 0; i < KEPT; i++) {
      T found = kept.getAndSet(i, null);
      if (found != null) {
        return found;
      }
    }
    return make.get();
  }

  /** Takes it back; false when there are enough of them. */
  public boolean give(T memory) {
    for (int i = 0; i < KEPT; i++) {
      if (kept.compareAndSet(i, null, memory)) {
        return true;
      }
    }
    return false;
  }

  /** Takes out all that is kept. */
  public void drain(Consumer<T> each) {
    for (int i = 0; i < KEPT; i++) {
      T found = kept.getAndSet(i, null);
      if (found != null) {
        each.accept(found);
      }
    }
  }
}
