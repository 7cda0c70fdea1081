package dev.gatun.bench.peers;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_BYTE;
import static java.lang.foreign.ValueLayout.JAVA_FLOAT;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * Jlama's native kernels: 4-bit weights by int8 activations and bfloat16 weights by floats, rows in
 * chunks over a fork-join pool as Jlama does it. What quantizing x costs is not timed.
 */
public final class Jlama implements PeerEngine {
  private static final int HAS_F16C_AND_AVX2 = 6;
  private static final int BLOCK = 32;

  /**
   * A tile has five rows of the weight. Jlama 0.8.4 leaves wrong what is beyond the last whole tile
   * in both directions, so weights are given rows of zeros up to a whole one.
   */
  private static final int TILE = 5;

  private static final int CHUNK = 125;

  /** Made by the service loader. */
  public Jlama() {}

  @Override
  public String name() {
    return "jlama";
  }

  @Override
  public @Nullable Contender open(RandomLayer layer, int threads, int copies, int mostRows) {
    if (layer.work() != Work.INT4_G32 && layer.work() != Work.BF16) {
      return null;
    }
    Arena arena = Arena.ofShared();
    boolean done = false;
    try {
      CLibrary library =
          new CLibrary(
              PeerLibrary.open(
                  "gatun.jlama", Map.of("META-INF/native/lib/libjlama.so", "libjlama.so"), arena));
      Product product = new Product(library, layer, threads, copies, mostRows, arena);
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
    private final RowChunks rows;
    private final boolean fourBits;
    private final MethodHandle gemm;
    private final List<MemorySegment> weights = new ArrayList<>();
    private final MemorySegment scales;
    private final MemorySegment codes;
    private final MemorySegment codeScales;
    private final MemorySegment y;
    private final int n;
    private final int padded;
    private final int k;
    private MemorySegment lastX = MemorySegment.NULL;
    private int lastRows;

    Product(
        CLibrary library, RandomLayer layer, int threads, int copies, int mostRows, Arena arena) {
      this.arena = arena;
      n = layer.n();
      padded = Math.ceilDiv(n, TILE) * TILE;
      k = layer.k();
      fourBits = layer.work() == Work.INT4_G32;
      rows = new RowChunks(threads, CHUNK);
      gemm =
          fourBits
              ? library.handle(
                  "gemm_q8_q4",
                  FunctionDescriptor.ofVoid(
                      JAVA_INT, ADDRESS, ADDRESS, JAVA_INT, ADDRESS, ADDRESS, JAVA_INT, ADDRESS,
                      JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT,
                      JAVA_INT, JAVA_INT, JAVA_INT))
              : library.handle(
                  "gemm_f32_bf16",
                  FunctionDescriptor.ofVoid(
                      JAVA_INT, ADDRESS, JAVA_INT, ADDRESS, JAVA_INT, ADDRESS, ADDRESS, JAVA_INT,
                      JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT, JAVA_INT));
      byte[] bytes = fourBits ? halves(layer.codes()) : layer.codes();
      for (int i = 0; i < copies; i++) {
        weights.add(padded(bytes));
      }
      scales = padded(layer.scaleBytes());
      codes = arena.allocate((long) mostRows * k, 64);
      codeScales = arena.allocate((long) mostRows * Math.ceilDiv(k, BLOCK) * Float.BYTES, 64);
      y = arena.allocate((long) mostRows * padded * Float.BYTES, 64);
    }

    private MemorySegment padded(byte[] bytes) {
      MemorySegment segment = arena.allocate((long) bytes.length / n * padded + Float.BYTES, 64);
      return segment.copyFrom(MemorySegment.ofArray(bytes));
    }

    /** Of each 32 codes, the first 16 in the low nibbles, the others in the high ones. */
    private static byte[] halves(byte[] pairs) {
      byte[] halves = new byte[pairs.length];
      for (int block = 0; block < pairs.length; block += BLOCK / 2) {
        for (int i = 0; i < BLOCK / 2; i++) {
          int low = pairs[block + i / 2] >> 4 * (i % 2) & 15;
          int high = pairs[block + BLOCK / 4 + i / 2] >> 4 * (i % 2) & 15;
          halves[block + i] = (byte) (high << 4 | low);
        }
      }
      return halves;
    }

    private void quantize(MemorySegment x, int m) {
      if (!fourBits || m == lastRows && x.address() == lastX.address()) {
        return;
      }
      for (long block = 0; block < (long) m * k / BLOCK; block++) {
        float most = 0;
        for (int i = 0; i < BLOCK; i++) {
          most = Math.max(most, Math.abs(x.getAtIndex(JAVA_FLOAT, block * BLOCK + i)));
        }
        float scale = most / 127;
        codeScales.setAtIndex(JAVA_FLOAT, block, scale);
        for (int i = 0; i < BLOCK; i++) {
          float value = x.getAtIndex(JAVA_FLOAT, block * BLOCK + i);
          codes.set(
              JAVA_BYTE, block * BLOCK + i, (byte) (scale == 0 ? 0 : Math.rint(value / scale)));
        }
      }
      lastRows = m;
      lastX = x;
    }

    @Override
    public String engine() {
      return "jlama";
    }

    @Override
    public String kernel(int m) {
      return fourBits ? "gemm_q8_q4" : "gemm_f32_bf16";
    }

    @Override
    public int copies() {
      return weights.size();
    }

    @Override
    public void run(MemorySegment x, int m) {
      quantize(x, m);
      for (int i = weights.size() - 1; i >= 0; i--) {
        MemorySegment w = weights.get(i);
        rows.run(padded, (first, count) -> multiply(x, w, m, first, count));
      }
    }

    private void multiply(MemorySegment x, MemorySegment w, int m, int first, int count) {
      try {
        if (fourBits) {
          gemm.invokeExact(
              HAS_F16C_AND_AVX2,
              codeScales,
              codes,
              0,
              scales,
              w,
              0,
              y,
              0,
              m,
              first,
              count,
              k,
              k,
              k / BLOCK,
              k / 2,
              k / BLOCK,
              padded);
        } else {
          gemm.invokeExact(
              HAS_F16C_AND_AVX2,
              x,
              0,
              w,
              0,
              MemorySegment.NULL,
              y,
              0,
              m,
              first,
              count,
              k,
              k,
              k,
              padded);
        }
      } catch (Throwable e) {
        throw new IllegalStateException(e);
      }
    }

    @Override
    public float[] output(MemorySegment x, int m) {
      run(x, m);
      float[] values = new float[m * n];
      for (int r = 0; r < m; r++) {
        long from = (long) r * padded * Float.BYTES;
        MemorySegment.copy(y, JAVA_FLOAT, from, values, r * n, n);
      }
      return values;
    }

    @Override
    public void close() {
      rows.close();
      arena.close();
    }
  }
}
