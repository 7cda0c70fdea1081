package dev.gatun.quantize;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.RowQuantizer;
import dev.gatun.checkpoint.TensorFileWriter;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Deviation;
import java.lang.foreign.Arena;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.Iterator;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;
import org.jspecify.annotations.Nullable;

/**
 * Quantizes layers a piece at a time on several threads, straight to their places in the file. The
 * threads share in one layer, and go on with the next when there is nothing left to take of it:
 * memory holds a piece for each thread.
 */
final class RowLayers {
  /** Bytes after which the file's are brought to disk, beside the work on the next ones. */
  private static final long FLUSHED = 1L << 28;

  private final Checkpoint source;
  private final Backend backend;
  private final int threads;
  private final ProgressListener progress;
  private final Journal journal;
  private final TensorFileWriter out;
  private final AtomicLong bytesWritten = new AtomicLong();

  private final Deque<Job> open = new ArrayDeque<>();
  private @Nullable RuntimeException failure;

  /**
   * @param out with every tensor of the layers declared
   */
  RowLayers(
      Checkpoint source,
      Backend backend,
      int threads,
      ProgressListener progress,
      Journal journal,
      TensorFileWriter out) {
    this.source = source;
    this.backend = backend.onOneThread();
    this.threads = threads;
    this.progress = progress;
    this.journal = journal;
    this.out = out;
  }

  /** A layer that is worked on; its counts are guarded by the runner. */
  private static final class Job {
    final RowLayer layer;
    int looked;
    int taken;
    int open;
    int done;

    Job(RowLayer layer) {
      this.layer = layer;
    }

    boolean isLooking() {
      return layer.rows().looksFirst() && looked < layer.pieces();
    }

    /** Whether pieces are looked at still that others wait for. */
    boolean isWaiting() {
      return layer.rows().looksFirst() && taken == 0 && open > 0;
    }
  }

  /** One piece of work. */
  private record Task(Job job, int piece, boolean looks) {}

  void run(List<RowLayer> layers) {
    Iterator<RowLayer> waiting = layers.iterator();
    try (ExecutorService flusher = Executors.newSingleThreadExecutor();
        ExecutorService workers = Executors.newFixedThreadPool(threads)) {
      for (int i = 0; i < threads; i++) {
        workers.execute(
            () -> {
              for (Optional<Task> task = next(waiting); task.isPresent(); task = next(waiting)) {
                run(task.get(), flusher);
              }
            });
      }
    }
    RuntimeException failed = failure;
    if (failed != null) {
      throw failed;
    }
  }

  /** The next piece, of the layer that was begun first; empty when there is none or one failed. */
  private synchronized Optional<Task> next(Iterator<RowLayer> waiting) {
    try {
      while (failure == null) {
        for (Job job : open) {
          if (job.isLooking()) {
            job.open++;
            return Optional.of(new Task(job, job.looked++, true));
          }
          if (!job.isWaiting() && job.taken < job.layer.pieces()) {
            job.open++;
            return Optional.of(new Task(job, job.taken++, false));
          }
        }
        if (waiting.hasNext()) {
          open.add(new Job(waiting.next()));
        } else if (open.isEmpty()) {
          return Optional.empty();
        } else {
          wait();
        }
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      failure = new GatunException("interrupted", e);
    }
    return Optional.empty();
  }

  private void run(Task task, ExecutorService flusher) {
    RowLayer layer = task.job.layer;
    try (Arena arena = Arena.ofConfined()) {
      if (task.piece == 0) {
        source.verifyFiles();
      }
      Tensor numbers = layer.read(task.piece, source, arena);
      if (task.looks) {
        layer.rows().look(numbers);
      } else {
        quantize(task, numbers, arena);
      }
      boolean last = finished(task);
      if (last) {
        layer.writeRest(layer.rows().rest(backend, arena), out);
        journal.append(layer.line());
        synchronized (progress) {
          progress.layer(layer.report());
        }
      }
      if (!task.looks) {
        flush(numbers.data().byteSize(), flusher);
      }
    } catch (RuntimeException | Error e) {
      fail(e instanceof RuntimeException r ? r : new IllegalStateException(e));
    }
  }

  private void quantize(Task task, Tensor numbers, Arena arena) {
    RowLayer layer = task.job.layer;
    RowQuantizer.Piece piece = layer.quantize(task.piece, numbers, backend, arena);
    long count = numbers.shape().get(0);
    Deviation deviation =
        backend.deviation(
            piece.matrix(), 0, count, numbers.data(), numbers.dtype().encoding().orElseThrow());
    if (!new ErrorMeter(deviation).isFinite()) {
      throw new GatunException(
          source.path()
              + ": tensor '"
              + numbers.name()
              + "': found NaN or infinity, expected finite numbers");
    }
    layer.write(task.piece, piece.parts(), deviation, out);
    synchronized (progress) {
      progress.advance(layer.item().layer(), numbers.data().byteSize());
    }
  }

  /** Whether that was the last piece of its layer. */
  private synchronized boolean finished(Task task) {
    Job job = task.job;
    job.open--;
    if (!task.looks) {
      job.done++;
    }
    boolean last = job.done == job.layer.pieces();
    if (last) {
      open.remove(job);
    }
    notifyAll();
    return last;
  }

  private synchronized void fail(RuntimeException e) {
    if (failure == null) {
      failure = e;
    }
    notifyAll();
  }

  /** Lets the disk work while the processor does. */
  private void flush(long bytes, ExecutorService flusher) {
    long before = bytesWritten.getAndAdd(bytes);
    if (before / FLUSHED != (before + bytes) / FLUSHED) {
      flusher.execute(
          () -> {
            try {
              out.flush();
            } catch (RuntimeException e) {
              fail(e);
            }
          });
    }
  }
}
