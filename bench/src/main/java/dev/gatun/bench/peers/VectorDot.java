package dev.gatun.bench.peers;

import static java.lang.foreign.ValueLayout.JAVA_FLOAT;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import jdk.incubator.vector.ByteVector;
import jdk.incubator.vector.FloatVector;
import jdk.incubator.vector.VectorOperators;
import jdk.incubator.vector.VectorSpecies;
import org.jspecify.annotations.Nullable;

/**
 * The plain way of pure-Java engines such as llama3.java: a row of the weight as it lies in the
 * file, its codes widened to floats in vectors, and a dot product with each row of x.
 */
public final class VectorDot implements PeerEngine {
  private static final int BLOCK = 32;
  private static final int HALF = BLOCK / 2;
  private static final VectorSpecies<Byte> BYTES = ByteVector.SPECIES_128;
  private static final VectorSpecies<Float> FLOATS = FloatVector.SPECIES_512;
  private static final ValueLayout.OfShort F16 =
      ValueLayout.JAVA_SHORT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  /** Made by the service loader. */
  public VectorDot() {}

  @Override
  public String name() {
    return "vector-dot";
  }

  @Override
  public @Nullable Contender open(RandomLayer layer, int threads, int copies, int mostRows) {
    return switch (layer.work()) {
      case Q4_0, Q8_0 -> new Product(layer, threads, copies, mostRows);
      default -> null;
    };
  }

  private static final class Product implements Contender {
    private final Arena arena = Arena.ofShared();
    private final RowChunks rows;
    private final List<MemorySegment> weights = new ArrayList<>();
    private final MemorySegment y;
    private final boolean fourBits;
    private final int blockBytes;
    private final int n;
    private final int k;

    Product(RandomLayer layer, int threads, int copies, int mostRows) {
      n = layer.n();
      k = layer.k();
      fourBits = layer.work() == Work.Q4_0;
      blockBytes = layer.work().encoding().blockBytes();
      rows = new RowChunks(threads, Math.ceilDiv(n, 4 * threads));
      for (int i = 0; i < copies; i++) {
        byte[] blocks = layer.codes();
        weights.add(arena.allocate(blocks.length, 64).copyFrom(MemorySegment.ofArray(blocks)));
      }
      y = arena.allocate((long) mostRows * n * Float.BYTES, 64);
    }

    @Override
    public String engine() {
      return "vector-dot";
    }

    @Override
    public String kernel(int m) {
      return "dot";
    }

    @Override
    public int copies() {
      return weights.size();
    }

    @Override
    public void run(MemorySegment x, int m) {
      for (int i = weights.size() - 1; i >= 0; i--) {
        MemorySegment w = weights.get(i);
        rows.run(
            n,
            (first, count) -> {
              for (int row = first; row < first + count; row++) {
                for (int r = 0; r < m; r++) {
                  y.setAtIndex(JAVA_FLOAT, (long) r * n + row, dot(x, (long) r * k, w, row));
                }
              }
            });
      }
    }

    private float dot(MemorySegment x, long from, MemorySegment w, int row) {
      FloatVector sum = FloatVector.zero(FLOATS);
      long block = (long) row * (k / BLOCK) * blockBytes;
      for (int column = 0; column < k; column += BLOCK, block += blockBytes) {
        FloatVector low;
        FloatVector high;
        ByteVector bytes =
            ByteVector.fromMemorySegment(BYTES, w, block + 2, ByteOrder.LITTLE_ENDIAN);
        if (fourBits) {
          low = floats(bytes.and((byte) 15).sub((byte) 8));
          high = floats(bytes.lanewise(VectorOperators.LSHR, 4).sub((byte) 8));
        } else {
          low = floats(bytes);
          high =
              floats(
                  ByteVector.fromMemorySegment(
                      BYTES, w, block + 2 + HALF, ByteOrder.LITTLE_ENDIAN));
        }
        FloatVector products =
            low.mul(numbers(x, from + column)).add(high.mul(numbers(x, from + column + HALF)));
        float scale = Float.float16ToFloat(w.get(F16, block));
        sum = products.fma(FloatVector.broadcast(FLOATS, scale), sum);
      }
      return sum.reduceLanes(VectorOperators.ADD);
    }

    private static FloatVector floats(ByteVector codes) {
      return (FloatVector) codes.castShape(FLOATS, 0);
    }

    private static FloatVector numbers(MemorySegment x, long index) {
      return FloatVector.fromMemorySegment(FLOATS, x, index * Float.BYTES, ByteOrder.nativeOrder());
    }

    @Override
    public float[] output(MemorySegment x, int m) {
      run(x, m);
      return y.asSlice(0, (long) m * n * Float.BYTES).toArray(JAVA_FLOAT);
    }

    @Override
    public void close() {
      rows.close();
      arena.close();
    }
  }
}
