package dev.gatun.bench.peers;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** OpenBLAS's float product. */
public final class OpenBlas implements PeerEngine {
  private static final int ROW_MAJOR = 101;
  private static final int AS_IT_IS = 111;
  private static final int TRANSPOSED = 112;

  /** Made by the service loader. */
  public OpenBlas() {}

  @Override
  public String name() {
    return "openblas";
  }

  @Override
  public @Nullable Contender open(RandomLayer layer, int threads, int copies, int mostRows) {
    if (layer.work() != Work.F32) {
      return null;
    }
    Arena arena = Arena.ofShared();
    boolean done = false;
    try {
      Product product = new Product(layer, threads, copies, mostRows, arena);
      done = true;
      return product;
    } finally {
      if (!done) {
        arena.close();
      }
    }
  }

  private static final class Product implements Contender {
    private final Arena arena;
    private final MethodHandle sgemm;
    private final List<MemorySegment> weights = new ArrayList<>();
    private final MemorySegment y;
    private final int n;
    private final int k;

    Product(RandomLayer layer, int threads, int copies, int mostRows, Arena arena) {
      this.arena = arena;
      n = layer.n();
      k = layer.k();
      SymbolLookup library =
          PeerLibrary.open(
              "gatun.openblas",
              PeerLibrary.bytedeco(
                  "openblas",
                  "libopenblas.so.0",
                  "libgfortran.so.5",
                  "libquadmath.so.0",
                  "libgcc_s.so.1"),
              arena);
      Linker linker = Linker.nativeLinker();
      MethodHandle setThreads =
          linker.downcallHandle(
              library.findOrThrow("openblas_set_num_threads"), FunctionDescriptor.ofVoid(JAVA_INT));
      sgemm =
          linker.downcallHandle(
              library.findOrThrow("cblas_sgemm"),
              FunctionDescriptor.ofVoid(
                  JAVA_INT,
                  JAVA_INT,
                  JAVA_INT,
                  JAVA_INT,
                  JAVA_INT,
                  JAVA_INT,
                  JAVA_FLOAT,
                  ADDRESS,
                  JAVA_INT,
                  ADDRESS,
                  JAVA_INT,
                  JAVA_FLOAT,
                  ADDRESS,
                  JAVA_INT));
      try {
        setThreads.invokeExact(threads);
      } catch (Throwable e) {
        throw new IllegalStateException(e);
      }
      for (int i = 0; i < copies; i++) {
        byte[] floats = layer.codes();
        weights.add(arena.allocate(floats.length, 64).copyFrom(MemorySegment.ofArray(floats)));
      }
      y = arena.allocate((long) mostRows * n * Float.BYTES, 64);
    }

    @Override
    public String engine() {
      return "openblas";
    }

    @Override
    public String kernel(int m) {
      return "cblas_sgemm";
    }

    @Override
    public int copies() {
      return weights.size();
    }

    /** In the other direction, so that the first copy's output is left. */
    @Override
    public void run(MemorySegment x, int m) {
      for (int i = weights.size() - 1; i >= 0; i--) {
        try {
          sgemm.invokeExact(
              ROW_MAJOR, AS_IT_IS, TRANSPOSED, m, n, k, 1f, x, k, weights.get(i), k, 0f, y, n);
        } catch (Throwable e) {
          throw new IllegalStateException(e);
        }
      }
    }

    @Override
    public float[] output(MemorySegment x, int m) {
      run(x, m);
      return y.asSlice(0, (long) m * n * Float.BYTES).toArray(JAVA_FLOAT);
    }

    @Override
    public void close() {
      arena.close();
    }
  }
}
