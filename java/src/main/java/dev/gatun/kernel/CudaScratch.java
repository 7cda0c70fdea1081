package dev.gatun.kernel;

import java.lang.foreign.MemorySegment;
import org.jspecify.annotations.Nullable;

/** What one call on host memory works with: a stream, its pinned memory, and room on the device. */
final class CudaScratch {
  /** More room than this is not kept for the next call. */
  private static final long MOST_KEPT = 256L << 20;

  private static final long ALIGNMENT = 256;

  private final CudaStream stream;
  private @Nullable CudaMemory room;
  private long used;
  private final CudaOperands operands = new CudaOperands();
  private final LinearCall<MemorySegment> call = new LinearCall<>();

  private CudaScratch(CudaContext context) {
    this.stream = new CudaStream(context);
  }

  CudaStream stream() {
    return stream;
  }

  /** How much room a piece of so many bytes takes. */
  static long piece(long bytes) {
    return Math.ceilDiv(Math.max(1, bytes), ALIGNMENT) * ALIGNMENT;
  }

  /** Makes room for pieces that take so much together. */
  void room(long bytes) {
    used = 0;
    if (room == null || room.byteSize() < bytes) {
      if (room != null) {
        room.close();
        room = null;
      }
      room = CudaMemory.allocate(stream.context(), bytes);
    }
  }

  /** The address of the next piece. */
  long next(long bytes) {
    CudaMemory whole = room;
    if (whole == null || piece(bytes) > whole.byteSize() - used) {
      throw new IllegalStateException("found a piece of " + bytes + " bytes, expected less");
    }
    long address = whole.address() + used;
    used += piece(bytes);
    return address;
  }

  /** For a copy of the call under way: see {@link LinearCall#set}. */
  LinearCall<MemorySegment> call() {
    return call;
  }

  /** For the call under way. */
  CudaOperands operands() {
    return operands;
  }

  /** Enqueues the upload of rows of the host's memory to the next piece; its address, or 0. */
  long upload(@Nullable MemorySegment from, long rows, long rowBytes, long stride) {
    if (from == null) {
      return 0;
    }
    long address = next(rows * rowBytes);
    stream.staging().upload(address, from, rows, rowBytes, stride);
    return address;
  }

  private void close() {
    stream.close();
    if (room != null) {
      room.close();
    }
  }

  /** Keeps some for the calls to come, until it is closed. */
  static final class Kept implements AutoCloseable {
    private final Pool<CudaScratch> pool;
    private volatile boolean closed;

    Kept(CudaContext context) {
      this.pool = new Pool<>(() -> new CudaScratch(context));
    }

    CudaScratch take() {
      return pool.take();
    }

    void give(CudaScratch scratch) {
      CudaMemory room = scratch.room;
      if (room != null && room.byteSize() > MOST_KEPT) {
        room.close();
        scratch.room = null;
      }
      if (!pool.give(scratch)) {
        scratch.close();
      } else if (closed) {
        close();
      }
    }

    @Override
    public void close() {
      closed = true;
      pool.drain(CudaScratch::close);
    }
  }
}
