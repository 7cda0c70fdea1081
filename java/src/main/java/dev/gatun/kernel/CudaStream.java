package dev.gatun.kernel;

import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.function.IntSupplier;
import org.jspecify.annotations.Nullable;

/**
 * Work for a GPU, done in the order in which it is given. What is given returns before it is done,
 * unless a method says otherwise. Streams run beside each other. Thread-safe: threads that share
 * one take turns.
 */
public final class CudaStream implements AutoCloseable {
  /** What is being recorded, and by whom. */
  private static final class Recording {
    final Thread thread = Thread.currentThread();
    final List<UseCount> held = new ArrayList<>();

    /** Nothing is given to the device yet: the work is looked at for the memory that it needs. */
    boolean measuring = true;

    long workspaceBytes;

    void hold(UseCount uses) {
      if (!measuring) {
        uses.enter();
        held.add(uses);
      }
    }

    void giveUp() {
      held.forEach(UseCount::leave);
    }
  }

  private final CudaContext context;
  private final int device;
  private final long handle;

  /** Marks how far the stream has come; see {@link #fence}. */
  private final long mark;

  private final Object marking = new Object();
  private final UseCount uses = new UseCount("stream", this::free);

  /** Guarded by {@link #marking}. */
  private boolean capturing;

  /** Where the library writes an answer of eight bytes. */
  private final MemorySegment answer = Arena.ofAuto().allocate(ValueLayout.JAVA_LONG);

  // Guarded by this.
  private final CudaOperands operands = new CudaOperands();
  private @Nullable CudaStaging staging;
  private long workspace;
  private long workspaceBytes;
  private boolean closed;

  /** Written under this; read by any thread, to which only its own recording matters. */
  private volatile @Nullable Recording recording;

  CudaStream(CudaContext context) {
    this.context = context;
    this.device = context.device();
    this.handle = context.newStream();
    boolean done = false;
    long event = 0;
    try {
      event = context.newEvent();
      this.mark = event;
      context.add(this);
      done = true;
    } finally {
      if (!done) {
        if (event != 0) {
          CudaCalls.check(gatun_cuda_h.gatun_cuda_event_destroy(device, event));
        }
        CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_destroy(device, handle));
      }
    }
  }

  /** The index of the device that it runs on. */
  public int device() {
    return device;
  }

  CudaContext context() {
    return context;
  }

  long handle() {
    return handle;
  }

  private void checkOpen() {
    if (closed) {
      throw new IllegalStateException("this stream is closed");
    }
  }

  private void checkNotRecording(String what) {
    checkOpen();
    if (recording != null) {
      throw new GatunException("cuda: found " + what + " within a capture, which cannot record it");
    }
  }

  /** The pinned memory of this stream; for one thread at a time. */
  CudaStaging staging() {
    if (staging == null) {
      staging = new CudaStaging(context, handle);
    }
    return staging;
  }

  /**
   * Copies bytes of the host to the begin of device memory, through two halves of pinned memory, so
   * that it overlaps with reading them: {@code from} may be a mapped file. It may be changed once
   * this returns.
   *
   * @throws IndexOutOfBoundsException when {@code to} is too short
   */
  public void upload(MemorySegment from, CudaMemory to) {
    checkFits("upload", from.byteSize(), to);
    to.uses().enter();
    try {
      synchronized (this) {
        checkNotRecording("an upload");
        staging().upload(to.address(), from);
      }
    } finally {
      to.uses().leave();
    }
  }

  /**
   * Copies the begin of device memory into all of {@code to}; returns when it is there.
   *
   * @throws IndexOutOfBoundsException when {@code from} is too short
   */
  public void download(CudaMemory from, MemorySegment to) {
    checkFits("download", to.byteSize(), from);
    from.uses().enter();
    try {
      synchronized (this) {
        checkNotRecording("a download");
        staging().download(from.address(), to);
      }
    } finally {
      from.uses().leave();
    }
  }

  /**
   * Copies all of {@code from} to the begin of {@code to}, both on this device.
   *
   * @throws IndexOutOfBoundsException when {@code to} is too short
   */
  public void copy(CudaMemory from, CudaMemory to) {
    checkFits("copy", from.byteSize(), to);
    checkHere(from);
    give(
        from.uses(),
        to.uses(),
        () ->
            gatun_cuda_h.gatun_cuda_copy(
                device, to.address(), from.address(), from.byteSize(), handle));
  }

  /** Sets every byte. */
  public void fill(CudaMemory memory, byte value) {
    checkHere(memory);
    give(
        memory.uses(),
        CudaMemory.NONE.uses(),
        () ->
            gatun_cuda_h.gatun_cuda_fill(
                device, memory.address(), value, memory.byteSize(), handle));
  }

  private void checkFits(String what, long bytes, CudaMemory memory) {
    checkHere(memory);
    if (bytes > memory.byteSize()) {
      throw new IndexOutOfBoundsException(
          "cuda: found a "
              + what
              + " of "
              + bytes
              + " bytes, expected at most "
              + memory.byteSize());
    }
  }

  /** Refuses another device's memory. */
  void checkHere(CudaMemory memory) {
    if (memory.device() != device && memory != CudaMemory.NONE) {
      throw new GatunException("cuda: found " + memory + ", expected memory of device " + device);
    }
  }

  /** Gives the device a call that uses two resources. */
  void give(UseCount first, UseCount second, IntSupplier call) {
    first.enter();
    try {
      second.enter();
      try {
        synchronized (this) {
          checkOpen();
          remember(first, second);
          if (!isMeasuring()) {
            CudaCalls.check(call.getAsInt());
          }
        }
      } finally {
        second.leave();
      }
    } finally {
      first.leave();
    }
  }

  private boolean isMeasuring() {
    Recording now = recording;
    return now != null && now.measuring;
  }

  /** Whether this thread is recording a graph here, which must {@link #remember} what it uses. */
  boolean isRecording() {
    Recording now = recording;
    return now != null && now.thread == Thread.currentThread();
  }

  /** Holds resources for the graph that this thread records, if it does. */
  void remember(UseCount... uses) {
    Recording now = recording;
    if (now != null && now.thread == Thread.currentThread()) {
      for (UseCount use : uses) {
        now.hold(use);
      }
    }
  }

  /** A product on the device's memory, all of which the caller holds. */
  synchronized void linear(CudaPacked weight, LinearCall<CudaMemory> call) {
    operands.fill(call);
    linear(weight, call, operands);
  }

  /**
   * The same with operands that lie elsewhere than the call says. The caller holds it all.
   *
   * @param call whose types, rows, epilogue and compute type are meant
   * @param on where its operands lie on the device
   */
  synchronized void linear(CudaPacked weight, LinearCall<?> call, CudaOperands on) {
    checkOpen();
    CudaCalls.check(CudaLaunch.workspace(weight, call, answer));
    if (hasWorkspace(answer.get(ValueLayout.JAVA_LONG, 0))) {
      CudaCalls.check(
          CudaLaunch.linear(device, weight, call, on, workspace, workspaceBytes, handle));
    }
  }

  /** A product by experts on the device's memory, all of which the caller holds. */
  synchronized void linear(CudaGroup group, LinearCall<CudaMemory> call, long offsets) {
    operands.fill(call);
    linear(group, call, operands, offsets);
  }

  /**
   * The same with operands that lie elsewhere than the call says.
   *
   * @param offsets their address on the device
   */
  synchronized void linear(CudaGroup group, LinearCall<?> call, CudaOperands on, long offsets) {
    checkOpen();
    CudaCalls.check(CudaLaunch.workspace(group, call, answer));
    if (hasWorkspace(answer.get(ValueLayout.JAVA_LONG, 0))) {
      CudaCalls.check(
          CudaLaunch.linear(device, group, call, on, offsets, workspace, workspaceBytes, handle));
    }
  }

  /** Makes sure that the workspace is as large; false while only its size is looked for. */
  private boolean hasWorkspace(long needed) {
    Recording now = recording;
    if (now != null && now.measuring) {
      now.workspaceBytes = Math.max(now.workspaceBytes, needed);
      return false;
    }
    if (needed > workspaceBytes) {
      growWorkspace(needed);
    }
    return true;
  }

  /** Gives the device a graph. */
  void launch(UseCount graph, long graphHandle) {
    graph.enter();
    try {
      synchronized (this) {
        checkNotRecording("a graph's launch");
        CudaCalls.check(gatun_cuda_h.gatun_cuda_graph_launch(device, graphHandle, handle));
      }
    } finally {
      graph.leave();
    }
  }

  private void growWorkspace(long bytes) {
    if (recording != null) {
      throw new GatunException(
          "cuda: found work that needs more memory the second time it is recorded, expected the same");
    }
    long larger = context.allocate(bytes);
    if (workspace != 0) {
      context.release(workspace);
    }
    workspace = larger;
    workspaceBytes = bytes;
  }

  /** Returns when the device has done what this stream was given. */
  public void synchronize() {
    uses.enter();
    try {
      synchronized (this) {
        checkNotRecording("a wait");
      }
      // Without the monitor, so that others can go on giving it work.
      CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_synchronize(device, handle));
    } finally {
      uses.leave();
    }
  }

  /** What this stream is given from now on waits for what {@code other} was given so far. */
  public void await(CudaStream other) {
    if (other.device != device) {
      throw new GatunException(
          "cuda: found a stream of device " + other.device + ", expected one of device " + device);
    }
    other.uses.enter();
    try {
      synchronized (this) {
        checkNotRecording("a wait");
        other.fence(handle);
      }
    } finally {
      other.uses.leave();
    }
  }

  /** Has another stream wait for what this one was given, or was given before a capture began. */
  void fence(long waiting) {
    synchronized (marking) {
      if (!capturing) {
        CudaCalls.check(gatun_cuda_h.gatun_cuda_event_record(device, mark, handle));
      }
      CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_wait(device, waiting, mark));
    }
  }

  /**
   * Records what {@code work} gives this stream, instead of doing it, as a graph that can be
   * launched again and again with the same memory. The work is run twice: once to learn how much
   * memory it needs. Other threads that give this stream work wait meanwhile.
   *
   * @throws GatunException for work that cannot be recorded, such as an upload
   */
  public synchronized CudaGraph capture(Runnable work) {
    Objects.requireNonNull(work, "work");
    checkNotRecording("a capture");
    Recording now = new Recording();
    long usedWorkspace = workspace;
    long usedBytes = workspaceBytes;
    long own = 0;
    boolean done = false;
    try {
      recording = now;
      work.run();
      own = now.workspaceBytes == 0 ? 0 : context.allocate(now.workspaceBytes);
      workspace = own;
      workspaceBytes = now.workspaceBytes;
      now.measuring = false;
      CudaGraph graph = new CudaGraph(context, record(work), now.held, own);
      done = true;
      return graph;
    } finally {
      recording = null;
      workspace = usedWorkspace;
      workspaceBytes = usedBytes;
      if (!done) {
        now.giveUp();
        if (own != 0) {
          context.release(own);
        }
      }
    }
  }

  private long record(Runnable work) {
    synchronized (marking) {
      CudaCalls.check(gatun_cuda_h.gatun_cuda_event_record(device, mark, handle));
      CudaCalls.check(gatun_cuda_h.gatun_cuda_capture_begin(device, handle));
      capturing = true;
    }
    boolean done = false;
    try {
      work.run();
      done = true;
    } finally {
      if (!done && endCapture() == gatun_h.GATUN_OK()) {
        long unwanted = answer.get(ValueLayout.JAVA_LONG, 0);
        CudaCalls.check(gatun_cuda_h.gatun_cuda_graph_destroy(device, unwanted));
      }
    }
    CudaCalls.check(endCapture());
    return answer.get(ValueLayout.JAVA_LONG, 0);
  }

  /** Writes the graph into {@link #answer}. */
  private int endCapture() {
    synchronized (marking) {
      capturing = false;
      return gatun_cuda_h.gatun_cuda_capture_end(device, handle, answer);
    }
  }

  /**
   * How long the device took over what {@code work} gave this stream, in milliseconds; returns when
   * it is done.
   */
  public double milliseconds(Runnable work) {
    long from = context.newEvent();
    try {
      long to = context.newEvent();
      try (Arena arena = Arena.ofConfined()) {
        synchronized (this) {
          checkNotRecording("a measurement");
          CudaCalls.check(gatun_cuda_h.gatun_cuda_event_record(device, from, handle));
          work.run();
          CudaCalls.check(gatun_cuda_h.gatun_cuda_event_record(device, to, handle));
        }
        CudaCalls.check(gatun_cuda_h.gatun_cuda_event_synchronize(device, to));
        MemorySegment ms = arena.allocate(ValueLayout.JAVA_FLOAT);
        CudaCalls.check(gatun_cuda_h.gatun_cuda_event_elapsed(device, from, to, ms));
        return ms.get(ValueLayout.JAVA_FLOAT, 0);
      } finally {
        CudaCalls.check(gatun_cuda_h.gatun_cuda_event_destroy(device, to));
      }
    } finally {
      CudaCalls.check(gatun_cuda_h.gatun_cuda_event_destroy(device, from));
    }
  }

  /** Ends the stream; the device still does what it was given. A second call does nothing. */
  @Override
  public synchronized void close() {
    if (!closed) {
      checkNotRecording("a close");
      closed = true;
      uses.close();
    }
  }

  private void free() {
    try {
      synchronized (this) {
        if (staging != null) {
          staging.close();
        }
        if (workspace != 0) {
          context.release(workspace);
        }
      }
      context.remove(this);
      CudaCalls.check(gatun_cuda_h.gatun_cuda_event_destroy(device, mark));
      CudaCalls.check(gatun_cuda_h.gatun_cuda_stream_destroy(device, handle));
    } finally {
      context.uses().leave();
    }
  }
}
