package dev.gatun.bench.peers;

import java.util.concurrent.ForkJoinPool;
import java.util.stream.IntStream;

/** Work on the rows of a weight, cut into chunks that threads of a pool take. */
final class RowChunks implements AutoCloseable {
  private final ForkJoinPool pool;
  private final int size;

  /**
   * A pool.
   *
   * @param size rows of a chunk
   */
  RowChunks(int threads, int size) {
    pool = new ForkJoinPool(threads);
    this.size = size;
  }

  /** What is done with a chunk. */
  interface Body {
    /** Works on some rows. */
    void run(int first, int count);
  }

  /** Works on every row and waits. */
  void run(int rows, Body body) {
    int chunks = Math.ceilDiv(rows, size);
    pool.submit(
            () ->
                IntStream.range(0, chunks)
                    .parallel()
                    .forEach(i -> body.run(i * size, Math.min(size, rows - i * size))))
        .join();
  }

  @Override
  public void close() {
    pool.close();
  }
}
