package dev.gatun.bench.peers;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import dev.gatun.GatunException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;

/**
 * One layer in oneDNN's own weight layout, which depends on the number of rows: weights are laid
 * out anew when that changes. Numbers are those of {@code dnnl_types.h}.
 */
final class OneDnnProduct implements Contender {
  private static final int CPU = 1;
  private static final int FLAT = 2; // dnnl_a
  private static final int ROWS = 3; // dnnl_ab
  private static final int COLUMNS = 14; // dnnl_ba
  private static final int ANY = 1;
  private static final int SRC = 1;
  private static final int WEIGHTS = 33;
  private static final int DST = 17;
  private static final int SCALES = 4096;
  private static final int QUERY_IMPLEMENTATION = 8;
  private static final int QUERY_WEIGHTS = 131;
  private static final int MATH_BF16 = 1;
  private static final int ARGUMENT_BYTES = 16;
  private static final MemorySegment ALLOCATE = MemorySegment.ofAddress(-1);

  private final CLibrary dnn;
  private final MethodHandle execute;
  private final RandomLayer layer;
  private final OneDnnTypes types;
  private final int copies;
  private final MemorySegment engine;
  private final MemorySegment stream;

  /** What is there for one number of rows; closed when another comes. */
  private Arena arena = Arena.ofShared();

  private final List<MemorySegment> memories = new ArrayList<>();
  private final List<MemorySegment> arguments = new ArrayList<>();
  private MemorySegment product = MemorySegment.NULL;
  private MemorySegment y = MemorySegment.NULL;
  private MemorySegment lastX = MemorySegment.NULL;
  private int lastRows;
  private String implementation = "";

  OneDnnProduct(CLibrary dnn, RandomLayer layer, OneDnnTypes types, int threads, int copies) {
    this.dnn = dnn;
    this.layer = layer;
    this.types = types;
    this.copies = copies;
    execute =
        dnn.handle(
            "dnnl_primitive_execute",
            FunctionDescriptor.of(JAVA_INT, ADDRESS, ADDRESS, JAVA_INT, ADDRESS));
    dnn.run("omp_set_num_threads", threads);
    try (Arena scratch = Arena.ofConfined()) {
      engine = made(scratch, "dnnl_engine_create", CPU, 0L);
      stream = made(scratch, "dnnl_stream_create", engine, 1);
    }
  }

  /** Calls a function whose first argument receives a pointer. */
  private MemorySegment made(Arena scratch, String function, Object... rest) {
    MemorySegment out = scratch.allocate(ADDRESS);
    Object[] all = new Object[rest.length + 1];
    all[0] = out;
    System.arraycopy(rest, 0, all, 1, rest.length);
    check(function, dnn.number(function, all));
    return out.get(ADDRESS, 0);
  }

  private static void check(String function, int status) {
    if (status != 0) {
      throw new GatunException("oneDNN, " + function + ": status " + status);
    }
  }

  private MemorySegment description(int type, int tag, long... sizes) {
    try (Arena scratch = Arena.ofConfined()) {
      MemorySegment dims = scratch.allocate(12 * JAVA_LONG.byteSize(), 8);
      MemorySegment.copy(sizes, 0, dims, JAVA_LONG, 0, sizes.length);
      return made(scratch, "dnnl_memory_desc_create_with_tag", sizes.length, dims, type, tag);
    }
  }

  /** Memory of oneDNN's own. */
  private MemorySegment memory(MemorySegment description) {
    try (Arena scratch = Arena.ofConfined()) {
      MemorySegment memory = made(scratch, "dnnl_memory_create", description, engine, ALLOCATE);
      memories.add(memory);
      return memory;
    }
  }

  private MemorySegment memory(MemorySegment description, MemorySegment contents) {
    MemorySegment memory = memory(description);
    try (Arena scratch = Arena.ofConfined()) {
      MemorySegment out = scratch.allocate(ADDRESS);
      check("get", dnn.number("dnnl_memory_get_data_handle", memory, out));
      out.get(ADDRESS, 0).reinterpret(contents.byteSize()).copyFrom(contents);
    }
    return memory;
  }

  /** Everything that depends on the number of rows, and x in the product's own type. */
  private void prepare(MemorySegment x, int m) {
    if (m == lastRows && x.address() == lastX.address()) {
      return;
    }
    release();
    arena = Arena.ofShared();
    long n = layer.n();
    long k = layer.k();
    int group = layer.work().group();
    MemorySegment xs = description(types.x(), ROWS, m, k);
    MemorySegment ys = description(OneDnnTypes.F32, ROWS, m, n);
    MemorySegment given = description(types.given(), COLUMNS, k, n);
    MemorySegment any = description(types.weight(), ANY, k, n);
    try (Arena scratch = Arena.ofConfined()) {
      MemorySegment attributes = made(scratch, "dnnl_primitive_attr_create");
      if (types.x() == OneDnnTypes.S8) {
        scale(attributes, SRC, 0);
        scale(attributes, WEIGHTS, 2);
      } else if (types.weight() == OneDnnTypes.S4) {
        MemorySegment groups = scratch.allocateFrom(JAVA_LONG, group, 1L);
        check(
            "scales",
            dnn.number(
                "dnnl_primitive_attr_set_scales",
                attributes,
                WEIGHTS,
                3,
                2,
                groups,
                OneDnnTypes.F32));
        check(
            "fpmath",
            dnn.number("dnnl_primitive_attr_set_fpmath_mode_v2", attributes, MATH_BF16, 1));
      }
      MemorySegment description =
          made(
              scratch,
              "dnnl_matmul_primitive_desc_create",
              engine,
              xs,
              any,
              MemorySegment.NULL,
              ys,
              attributes);
      MemorySegment name = scratch.allocate(ADDRESS);
      dnn.number("dnnl_primitive_desc_query", description, QUERY_IMPLEMENTATION, 0, name);
      implementation = name.get(ADDRESS, 0).reinterpret(256).getString(0);
      product = made(scratch, "dnnl_primitive_create", description);
      MemorySegment packed =
          dnn.pointer("dnnl_primitive_desc_query_md", description, QUERY_WEIGHTS, 0);
      MemorySegment reordering =
          made(
              scratch,
              "dnnl_reorder_primitive_desc_create",
              given,
              engine,
              packed,
              engine,
              MemorySegment.NULL);
      MemorySegment reorder = made(scratch, "dnnl_primitive_create", reordering);
      MemorySegment source = memory(given, weights());
      y = memory(ys);
      List<Object> shared = new ArrayList<>(List.of(SRC, memory(xs, activations(x, m)), DST, y));
      scales(shared);
      for (int i = 0; i < copies; i++) {
        MemorySegment weight = memory(packed);
        execute(reorder, list(List.of(SRC, source, DST, weight)));
        List<Object> all = new ArrayList<>(shared);
        all.addAll(List.of(WEIGHTS, weight));
        arguments.add(list(all));
      }
      dnn.number("dnnl_primitive_destroy", reorder);
      for (MemorySegment used : List.of(reordering, description)) {
        dnn.number("dnnl_primitive_desc_destroy", used);
      }
      dnn.number("dnnl_primitive_attr_destroy", attributes);
      for (MemorySegment used : List.of(xs, ys, given, any)) {
        dnn.number("dnnl_memory_desc_destroy", used);
      }
    }
    lastRows = m;
    lastX = x;
  }

  private void scale(MemorySegment attributes, int argument, int mask) {
    check("scales", dnn.number("dnnl_primitive_attr_set_scales_mask", attributes, argument, mask));
  }

  private void scales(List<Object> list) {
    if (types.weight() == OneDnnTypes.S8 || types.weight() == OneDnnTypes.S4) {
      MemorySegment values = MemorySegment.ofArray(layer.scaleBytes());
      MemorySegment d =
          types.weight() == OneDnnTypes.S8
              ? description(OneDnnTypes.F32, FLAT, layer.n())
              : description(OneDnnTypes.F32, ROWS, layer.k() / layer.work().group(), layer.n());
      list.addAll(
          List.of(
              SCALES | WEIGHTS,
              memory(d, types.weight() == OneDnnTypes.S8 ? values : transposedScales())));
      dnn.number("dnnl_memory_desc_destroy", d);
    }
    if (types.x() == OneDnnTypes.S8) {
      MemorySegment d = description(OneDnnTypes.F32, FLAT, 1);
      list.addAll(List.of(SCALES | SRC, memory(d, MemorySegment.ofArray(new float[] {1f / 127}))));
      dnn.number("dnnl_memory_desc_destroy", d);
    }
  }

  private MemorySegment transposedScales() {
    int groups = layer.k() / layer.work().group();
    float[] transposed = new float[groups * layer.n()];
    MemorySegment scales = MemorySegment.ofArray(layer.scaleBytes());
    for (int row = 0; row < layer.n(); row++) {
      for (int g = 0; g < groups; g++) {
        transposed[g * layer.n() + row] =
            scales.get(ValueLayout.JAVA_FLOAT_UNALIGNED, ((long) row * groups + g) * Float.BYTES);
      }
    }
    return MemorySegment.ofArray(transposed);
  }

  /** N × K numbers; codes of four bits as floats, which oneDNN makes its own of. */
  private MemorySegment weights() {
    byte[] codes = layer.codes();
    if (types.weight() != OneDnnTypes.S4) {
      return MemorySegment.ofArray(codes);
    }
    float[] floats = new float[2 * codes.length];
    for (int i = 0; i < floats.length; i++) {
      floats[i] = (codes[i / 2] >> 4 * (i % 2) & 15) - layer.work().zeroPoint();
    }
    return MemorySegment.ofArray(floats);
  }

  /** x between -1 and 1 in the product's own type; int8 as multiples of 1/127. */
  private MemorySegment activations(MemorySegment x, int m) {
    long count = (long) m * layer.k();
    if (types.x() == OneDnnTypes.F32) {
      return x.asSlice(0, count * Float.BYTES);
    }
    MemorySegment converted = arena.allocate(2 * count, 64);
    for (long i = 0; i < count; i++) {
      float value = x.getAtIndex(JAVA_FLOAT, i);
      if (types.x() == OneDnnTypes.S8) {
        converted.set(JAVA_BYTE, i, (byte) Math.rint(value * 127));
      } else {
        int bits = Float.floatToRawIntBits(value);
        converted.setAtIndex(JAVA_SHORT, i, (short) (bits + 0x7FFF + (bits >>> 16 & 1) >>> 16));
      }
    }
    return types.x() == OneDnnTypes.S8 ? converted.asSlice(0, count) : converted;
  }

  /** An array of {@code dnnl_exec_arg_t}: a count is not among it. */
  private MemorySegment list(List<Object> pairs) {
    MemorySegment list = arena.allocate((long) pairs.size() / 2 * ARGUMENT_BYTES, 8);
    for (int i = 0; i < pairs.size(); i += 2) {
      list.set(JAVA_INT, i / 2 * (long) ARGUMENT_BYTES, (int) pairs.get(i));
      list.set(ADDRESS, i / 2 * (long) ARGUMENT_BYTES + 8, (MemorySegment) pairs.get(i + 1));
    }
    return list;
  }

  private void execute(MemorySegment primitive, MemorySegment list) {
    int status;
    try {
      status =
          (int)
              execute.invokeExact(
                  primitive, stream, (int) (list.byteSize() / ARGUMENT_BYTES), list);
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
    check("dnnl_primitive_execute", status);
  }

  @Override
  public String engine() {
    return "onednn";
  }

  @Override
  public String kernel(int m) {
    return implementation;
  }

  @Override
  public int copies() {
    return copies;
  }

  @Override
  public void run(MemorySegment x, int m) {
    prepare(x, m);
    for (int i = copies - 1; i >= 0; i--) {
      execute(product, arguments.get(i));
    }
  }

  @Override
  public float[] output(MemorySegment x, int m) {
    run(x, m);
    MemorySegment out = arena.allocate(ADDRESS);
    check("get", dnn.number("dnnl_memory_get_data_handle", y, out));
    return out.get(ADDRESS, 0).reinterpret((long) m * layer.n() * Float.BYTES).toArray(JAVA_FLOAT);
  }

  private void release() {
    memories.forEach(memory -> dnn.number("dnnl_memory_destroy", memory));
    memories.clear();
    arguments.clear();
    if (!product.equals(MemorySegment.NULL)) {
      dnn.number("dnnl_primitive_destroy", product);
      product = MemorySegment.NULL;
    }
    lastRows = 0;
    arena.close();
  }

  @Override
  public void close() {
    release();
    dnn.number("dnnl_stream_destroy", stream);
    dnn.number("dnnl_engine_destroy", engine);
  }
}
