package dev.gatun.kernel;

import dev.gatun.CudaOutOfMemoryException;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.LinkedHashSet;
import java.util.Set;

/**
 * One GPU as one backend uses it: its memory, and the streams that work on it. Memory is given back
 * in the order of the work: a release waits, on the GPU, for whatever every stream was given before
 * it, so that nobody has to wait for a close and no kernel loses what it reads. The context ends
 * when the backend is closed and the last piece of memory, stream and graph is.
 */
final class CudaContext {
  private final int device;

  /** Nothing else runs on it, so that an allocation waits for no kernel. */
  private final long allocating;

  /** Runs behind the streams' work. */
  private final long freeing;

  /** Of the open streams. Guarded by this. */
  private final Set<CudaStream> streams = new LinkedHashSet<>();

  private final UseCount uses = new UseCount("device", this::end);

  /** Fails when there is no such device. */
  CudaContext(int device) {
    this.device = device;
    this.allocating = newStream();
    boolean done = false;
    try {
      this.freeing = newStream();
      done = true;
    } finally {
      if (!done) {
        CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_destroy(device, allocating));
      }
    }
  }

  int device() {
    return device;
  }

  long newStream() {
    return CudaCalls.made(out -> gatun_cuda_h.gatun_cuda_stream_create(device, out));
  }

  long newEvent() {
    return CudaCalls.made(out -> gatun_cuda_h.gatun_cuda_event_create(device, out));
  }

  /** Everything that lives on the device is one use. */
  UseCount uses() {
    return uses;
  }

  /** Fresh memory, which any stream may use at once; one use of the context. */
  long allocate(long bytes) {
    uses.enter();
    boolean done = false;
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment out = arena.allocate(ValueLayout.JAVA_LONG);
      int status = gatun_cuda_h.gatun_cuda_allocate(device, bytes, allocating, out);
      if (status == gatun_h.GATUN_OUT_OF_MEMORY()) {
        // What was released may still wait for the work before it.
        CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_synchronize(device, freeing));
        status = gatun_cuda_h.gatun_cuda_allocate(device, bytes, allocating, out);
      }
      if (status == gatun_h.GATUN_OUT_OF_MEMORY()) {
        String detail = CudaCalls.detail(status);
        throw new CudaOutOfMemoryException("cuda: " + detail, bytes, freeBytes());
      }
      CudaCalls.check(status);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_synchronize(device, allocating));
      done = true;
      return out.get(ValueLayout.JAVA_LONG, 0);
    } finally {
      if (!done) {
        uses.leave();
      }
    }
  }

  /**
   * Gives memory back once the work that the streams have been given is done; waits for nothing.
   */
  void release(long address) {
    try {
      synchronized (this) {
        fence();
        CudaCalls.check(gatun_cuda_h.gatun_cuda_free(device, address, freeing));
      }
    } finally {
      uses.leave();
    }
  }

  /** Has {@link #freeing} wait for all that the streams have been given. */
  private void fence() {
    for (CudaStream stream : streams) {
      stream.fence(freeing);
    }
  }

  /** Waits for all that the streams have been given, and for what was released to be free. */
  void synchronize() {
    synchronized (this) {
      fence();
    }
    CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_synchronize(device, freeing));
  }

  synchronized void add(CudaStream stream) {
    uses.enter();
    streams.add(stream);
  }

  /** A stream that is about to be destroyed: what it was given still holds back later releases. */
  void remove(CudaStream stream) {
    synchronized (this) {
      stream.fence(freeing);
      streams.remove(stream);
    }
  }

  long freeBytes() {
    return memory()[0];
  }

  /** Bytes free and in all. */
  long[] memory() {
    return memory(device);
  }

  static long[] memory(int device) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment free = arena.allocate(ValueLayout.JAVA_LONG);
      MemorySegment total = arena.allocate(ValueLayout.JAVA_LONG);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_memory(device, free, total));
      return new long[] {free.get(ValueLayout.JAVA_LONG, 0), total.get(ValueLayout.JAVA_LONG, 0)};
    }
  }

  private void end() {
    CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_synchronize(device, freeing));
    CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_destroy(device, freeing));
    CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_destroy(device, allocating));
  }
}
