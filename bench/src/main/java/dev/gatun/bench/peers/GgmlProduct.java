package dev.gatun.bench.peers;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BOOLEAN;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;

import dev.gatun.GatunException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;

/** One layer's copies as tensors of ggml, and the graph of their products for a number of rows. */
final class GgmlProduct implements Contender {
  private static final int F32 = 0;
  private static final int THREADPOOL_BYTES = 4096; // more than ggml_threadpool_params takes
  private static final MemoryLayout INIT_PARAMETERS =
      MemoryLayout.structLayout(
          JAVA_LONG, ADDRESS, JAVA_BOOLEAN, MemoryLayout.paddingLayout(Long.BYTES - 1));

  private final CLibrary ggml;
  private final MethodHandle compute;
  private final RandomLayer layer;
  private final Arena arena = Arena.ofShared();
  private final int copies;
  private final MemorySegment backend;
  private final MemorySegment threads;
  private final MemorySegment context;
  private final MemorySegment buffer;
  private final MemorySegment y;
  private final MemorySegment yBuffer;
  private final List<MemorySegment> weights = new ArrayList<>();
  private final String form;
  private MemorySegment graphContext = MemorySegment.NULL;
  private MemorySegment xBuffer = MemorySegment.NULL;
  private MemorySegment graph = MemorySegment.NULL;
  private MemorySegment lastX = MemorySegment.NULL;
  private int lastRows;

  GgmlProduct(
      CLibrary ggml, RandomLayer layer, int type, int threadCount, int copies, int mostRows) {
    this.ggml = ggml;
    this.layer = layer;
    this.copies = copies;
    compute =
        ggml.handle(
            "ggml_backend_graph_compute", FunctionDescriptor.of(JAVA_INT, ADDRESS, ADDRESS));
    backend = ggml.pointer("ggml_backend_cpu_init");
    MemorySegment parameters = arena.allocate(THREADPOOL_BYTES, 64);
    ggml.run("ggml_threadpool_params_init", parameters, threadCount);
    threads = ggml.pointer("ggml_threadpool_new", parameters);
    ggml.run("ggml_backend_cpu_set_n_threads", backend, threadCount);
    ggml.run("ggml_backend_cpu_set_threadpool", backend, threads);
    y = arena.allocate((long) mostRows * layer.n() * Float.BYTES, 64);
    yBuffer = ggml.pointer("ggml_backend_cpu_buffer_from_ptr", y, y.byteSize());
    MemorySegment bufferType = bufferType(type);
    form =
        ggml.pointer("ggml_backend_buft_name", bufferType).reinterpret(Byte.MAX_VALUE).getString(0);
    context = context(copies);
    for (int i = 0; i < copies; i++) {
      weights.add(tensor(context, type, layer.n()));
    }
    buffer = ggml.pointer("ggml_backend_alloc_ctx_tensors_from_buft", context, bufferType);
    if (buffer.equals(MemorySegment.NULL)) {
      throw new GatunException("ggml: found no memory for " + copies + " weights");
    }
    MemorySegment codes = arena.allocate(layer.codes().length, 64);
    MemorySegment.copy(layer.codes(), 0, codes, JAVA_BYTE, 0, layer.codes().length);
    for (MemorySegment weight : weights) {
      ggml.run("ggml_backend_tensor_set", weight, codes, 0L, codes.byteSize());
    }
  }

  /** A context that holds descriptions of tensors only. */
  private MemorySegment context(int tensors) {
    long size =
        ggml.size("ggml_tensor_overhead") * (tensors + 1)
            + ggml.size("ggml_graph_overhead_custom", 2L * tensors + 1, false);
    MemorySegment parameters = arena.allocate(INIT_PARAMETERS);
    parameters.set(JAVA_LONG, 0, size);
    parameters.set(ADDRESS, JAVA_LONG.byteSize(), MemorySegment.NULL);
    parameters.set(JAVA_BOOLEAN, JAVA_LONG.byteSize() + ADDRESS.byteSize(), true);
    try {
      return (MemorySegment)
          ggml.handle("ggml_init", FunctionDescriptor.of(ADDRESS, INIT_PARAMETERS))
              .invokeExact(parameters);
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  private MemorySegment tensor(MemorySegment where, int type, long rows) {
    return ggml.pointer("ggml_new_tensor_2d", where, type, (long) layer.k(), rows);
  }

  /** The form that ggml would load such a weight in: the first of its own that it multiplies. */
  private MemorySegment bufferType(int type) {
    MemorySegment device = ggml.pointer("ggml_backend_get_device", backend);
    MemorySegment registry = ggml.pointer("ggml_backend_dev_backend_reg", device);
    MemorySegment list =
        ggml.pointer(
            "ggml_backend_reg_get_proc_address",
            registry,
            arena.allocateFrom("ggml_backend_dev_get_extra_bufts"));
    if (!list.equals(MemorySegment.NULL)) {
      MemorySegment types = CLibrary.pointer(list, device).reinterpret(Long.MAX_VALUE);
      for (int i = 0; !types.getAtIndex(ADDRESS, i).equals(MemorySegment.NULL); i++) {
        MemorySegment bufferType = types.getAtIndex(ADDRESS, i);
        MemorySegment trial = context(3);
        MemorySegment weight = tensor(trial, type, layer.n());
        MemorySegment x = tensor(trial, F32, 1);
        MemorySegment product = ggml.pointer("ggml_mul_mat", trial, weight, x);
        // The weight is the only one of the three that would lie in that memory.
        MemorySegment memory =
            ggml.pointer("ggml_backend_buft_alloc_buffer", bufferType, layer.k() * 4L * layer.n());
        ggml.number(
            "ggml_backend_tensor_alloc",
            memory,
            weight,
            ggml.pointer("ggml_backend_buffer_get_base", memory));
        boolean multiplies = ggml.truth("ggml_backend_dev_supports_op", device, product);
        ggml.run("ggml_backend_buffer_free", memory);
        ggml.run("ggml_free", trial);
        if (multiplies) {
          return bufferType;
        }
      }
    }
    return ggml.pointer("ggml_backend_get_default_buffer_type", backend);
  }

  /** The graph of all products with x; every product is written to the same place. */
  private void prepare(MemorySegment x, int m) {
    if (m == lastRows && x.address() == lastX.address()) {
      return;
    }
    release();
    graphContext = context(copies + 1);
    MemorySegment rows = tensor(graphContext, F32, m);
    xBuffer = ggml.pointer("ggml_backend_cpu_buffer_from_ptr", x, x.byteSize());
    ggml.number("ggml_backend_tensor_alloc", xBuffer, rows, x);
    graph = ggml.pointer("ggml_new_graph_custom", graphContext, 2L * copies + 1, false);
    for (int i = copies - 1; i >= 0; i--) {
      MemorySegment product = ggml.pointer("ggml_mul_mat", graphContext, weights.get(i), rows);
      ggml.number("ggml_backend_tensor_alloc", yBuffer, product, y);
      ggml.run("ggml_build_forward_expand", graph, product);
    }
    lastRows = m;
    lastX = x;
  }

  @Override
  public String engine() {
    return "ggml";
  }

  @Override
  public String kernel(int m) {
    return "mul_mat, " + form;
  }

  @Override
  public int copies() {
    return copies;
  }

  @Override
  public void run(MemorySegment x, int m) {
    prepare(x, m);
    int status;
    try {
      status = (int) compute.invokeExact(backend, graph);
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
    if (status != 0) {
      throw new GatunException("ggml, ggml_backend_graph_compute: status " + status);
    }
  }

  @Override
  public float[] output(MemorySegment x, int m) {
    run(x, m);
    return y.asSlice(0, (long) m * layer.n() * Float.BYTES).toArray(JAVA_FLOAT);
  }

  /** They would look for work for a tenth of a second; the next graph wakes them. */
  @Override
  public void rest() {
    ggml.run("ggml_threadpool_pause", threads);
  }

  private void release() {
    if (!graphContext.equals(MemorySegment.NULL)) {
      ggml.run("ggml_backend_buffer_free", xBuffer);
      ggml.run("ggml_free", graphContext);
      graphContext = MemorySegment.NULL;
    }
    lastRows = 0;
  }

  @Override
  public void close() {
    release();
    ggml.run("ggml_backend_buffer_free", buffer);
    ggml.run("ggml_backend_buffer_free", yBuffer);
    ggml.run("ggml_free", context);
    ggml.run("ggml_backend_free", backend);
    ggml.run("ggml_threadpool_free", threads);
    arena.close();
  }
}
