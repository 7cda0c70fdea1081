package dev.gatun.kernel;

import dev.gatun.bindings.gatun_cuda_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/**
 * Two halves of page-locked memory through which bytes go to a device and come back: while the
 * device copies one half, Java fills or empties the other. The bytes may be rows with gaps between
 * them on the host's side; on the device they have none. For one thread at a time.
 */
final class CudaStaging {
  private static final int HALVES = 2;
  private static final long HALF_BYTES = 4L << 20;

  private final int device;
  private final long stream;
  private final MemorySegment[] halves = new MemorySegment[HALVES];

  /** When the device has passed a half's last copy. */
  private final long[] events = new long[HALVES];

  private int made;

  CudaStaging(CudaContext context, long stream) {
    this.device = context.device();
    this.stream = stream;
    boolean done = false;
    try {
      while (made < HALVES) {
        events[made] = context.newEvent();
        halves[made] = pageLocked();
        made++;
      }
      done = true;
    } finally {
      if (!done) {
        close();
      }
    }
  }

  private MemorySegment pageLocked() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment out = arena.allocate(ValueLayout.ADDRESS);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_host_allocate(device, HALF_BYTES, out));
      return out.get(gatun_cuda_h.C_POINTER, 0).asSlice(0, HALF_BYTES);
    }
  }

  /** Enqueues the upload of all of {@code from}, which may be changed once this returns. */
  void upload(long to, MemorySegment from) {
    upload(to, from, 1, from.byteSize(), from.byteSize());
  }

  /**
   * Enqueues the upload of rows, which may be changed once this returns.
   *
   * @param to address on the device
   * @param rowBytes of each row
   * @param stride bytes from a row's begin to the next one's on the host
   */
  void upload(long to, MemorySegment from, long rows, long rowBytes, long stride) {
    long total = rows * rowBytes;
    int half = 0;
    for (long at = 0; at < total; at += HALF_BYTES) {
      long count = Math.min(HALF_BYTES, total - at);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_event_synchronize(device, events[half]));
      rows(from, halves[half], rowBytes, stride, at, count, true);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_upload(device, to + at, halves[half], count, stream));
      CudaCalls.check(gatun_cuda_h.gatun_cuda_event_record(device, events[half], stream));
      half ^= 1;
    }
  }

  /** Downloads all of {@code to}; returns when it is there. */
  void download(long from, MemorySegment to) {
    download(from, to, 1, to.byteSize(), to.byteSize());
  }

  /** Downloads rows; returns when they are there. What lies between them stays as it is. */
  void download(long from, MemorySegment to, long rows, long rowBytes, long stride) {
    long total = rows * rowBytes;
    int half = 0;
    enqueueDownload(from, total, 0, half);
    for (long at = 0; at < total; at += HALF_BYTES) {
      enqueueDownload(from, total, at + HALF_BYTES, half ^ 1);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_event_synchronize(device, events[half]));
      rows(to, halves[half], rowBytes, stride, at, Math.min(HALF_BYTES, total - at), false);
      half ^= 1;
    }
  }

  private void enqueueDownload(long from, long total, long at, int half) {
    if (at < total) {
      long count = Math.min(HALF_BYTES, total - at);
      CudaCalls.check(
          gatun_cuda_h.gatun_cuda_download(device, halves[half], from + at, count, stream));
      CudaCalls.check(gatun_cuda_h.gatun_cuda_event_record(device, events[half], stream));
    }
  }

  /** Copies bytes {@code at .. at+count-1}, counted without gaps, between rows and a half. */
  private static void rows(
      MemorySegment rows,
      MemorySegment half,
      long rowBytes,
      long stride,
      long at,
      long count,
      boolean gather) {
    long done = 0;
    while (done < count) {
      long row = (at + done) / rowBytes;
      long within = (at + done) % rowBytes;
      long piece = stride == rowBytes ? count - done : Math.min(rowBytes - within, count - done);
      long place = row * stride + within;
      if (gather) {
        MemorySegment.copy(rows, place, half, done, piece);
      } else {
        MemorySegment.copy(half, done, rows, place, piece);
      }
      done += piece;
    }
  }

  /** Waits for copies under way. */
  void close() {
    for (int i = 0; i < HALVES; i++) {
      if (i < made) {
        CudaCalls.check(gatun_cuda_h.gatun_cuda_event_synchronize(device, events[i]));
        CudaCalls.check(gatun_cuda_h.gatun_cuda_host_free(halves[i]));
      }
      if (events[i] != 0) {
        CudaCalls.check(gatun_cuda_h.gatun_cuda_event_destroy(device, events[i]));
      }
    }
  }
}
