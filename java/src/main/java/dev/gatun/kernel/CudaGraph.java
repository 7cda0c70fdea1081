package dev.gatun.kernel;

import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_cuda_h;
import java.util.List;

/**
 * Work that a {@link CudaStream} recorded, to be launched with one call. It keeps the layers and
 * the memory that it works with, also when they are closed meanwhile. Launches of one graph follow
 * each other, on whatever streams they are. Thread-safe.
 */
public final class CudaGraph implements AutoCloseable {
  private final CudaContext context;
  private final long handle;
  private final List<UseCount> held;
  private final long workspace;
  private final UseCount uses = new UseCount("graph", this::free);

  /** Takes over what it is given. */
  CudaGraph(CudaContext context, long handle, List<UseCount> held, long workspace) {
    this.context = context;
    this.handle = handle;
    this.held = held;
    this.workspace = workspace;
    boolean done = false;
    try {
      context.uses().enter();
      done = true;
    } finally {
      if (!done) {
        CudaCalls.check(gatun_cuda_h.gatun_cuda_graph_destroy(context.device(), handle));
      }
    }
  }

  /** Gives the recorded work to a stream of the same device; returns before it is done. */
  public void launch(CudaStream stream) {
    if (stream.context() != context) {
      throw new GatunException("cuda: found a stream of another device than the graph's");
    }
    stream.launch(uses, handle);
  }

  private void free() {
    try {
      context.synchronize();
      CudaCalls.check(gatun_cuda_h.gatun_cuda_graph_destroy(context.device(), handle));
      if (workspace != 0) {
        context.release(workspace);
      }
    } finally {
      held.forEach(UseCount::leave);
      context.uses().leave();
    }
  }

  /** Waits for launches under way and frees the graph. A second call does nothing. */
  @Override
  public void close() {
    uses.close();
  }
}
