package dev.gatun.kernel;

import java.lang.foreign.MemorySegment;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/**
 * Keeps the last matrix that was uploaded to be read: a large tensor of a checkpoint is dequantized
 * some rows at a time, and would be uploaded for each. Only read-only memory, such as a
 * checkpoint's, is taken to hold what it held before.
 */
final class CudaUploads implements AutoCloseable {
  private record Kept(Matrix matrix, CudaMatrix on) {}

  private final AtomicReference<@Nullable Kept> last = new AtomicReference<>();
  private volatile boolean closed;

  /** The matrix on the device, until it is given back. */
  CudaMatrix take(CudaStream stream, Matrix matrix) {
    Kept kept = last.getAndSet(null);
    if (kept != null) {
      // The very same record; two that are equal may be of different bytes.
      if (isSame(kept.matrix, matrix) && isAlive(matrix)) {
        return kept.on;
      }
      kept.on.close();
    }
    return CudaMatrix.upload(stream, matrix);
  }

  @SuppressWarnings("ReferenceEquality")
  private static boolean isSame(Matrix a, Matrix b) {
    return a == b;
  }

  private static boolean isAlive(Matrix matrix) {
    return matrix.memory().values().stream()
        .allMatch(m -> m.scope().isAlive() && m.isAccessibleBy(Thread.currentThread()));
  }

  void give(Matrix matrix, CudaMatrix on) {
    boolean constant = matrix.memory().values().stream().allMatch(MemorySegment::isReadOnly);
    Kept before = constant && !closed ? last.getAndSet(new Kept(matrix, on)) : new Kept(matrix, on);
    if (before != null) {
      before.on.close();
    }
    if (closed) {
      close();
    }
  }

  @Override
  public void close() {
    closed = true;
    Kept kept = last.getAndSet(null);
    if (kept != null) {
      kept.on.close();
    }
  }
}
