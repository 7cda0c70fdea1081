package dev.gatun.bench.peers;

import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.DType;
import dev.gatun.kernel.CodeOrder;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.Layout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * One random weight, in the arrays from which every engine makes its own form, and what is right
 * about its products.
 */
final class RandomLayer {
  private static final int CHECKED_OUTPUTS = 64;

  private record RandomLayout(Encoding encoding) implements Layout {
    @Override
    public String name() {
      return "random." + encoding.name().toLowerCase(java.util.Locale.ROOT);
    }

    @Override
    public String describe() {
      return "random codes of " + encoding;
    }
  }

  private final Work work;
  private final int n;
  private final int k;
  private final byte[] codes;
  private final float[] scales;

  /** A weight of N × K; K must be a multiple of the work's group. */
  RandomLayer(Work work, int n, int k) {
    this.work = work;
    this.n = n;
    this.k = k;
    SplittableRandom random = new SplittableRandom(7);
    Encoding encoding = work.encoding();
    codes =
        new byte
            [Math.toIntExact(
                encoding.isBlock()
                    ? (long) n * k / encoding.blockElements() * encoding.blockBytes()
                    : (long) n * k * encoding.bits() / 8)];
    if (encoding.isPlain()) {
      MemorySegment numbers = MemorySegment.ofArray(codes);
      for (long i = 0; i < (long) n * k; i++) {
        Numbers.put(encoding, numbers, i, (float) (2 * random.nextDouble() - 1));
      }
    } else if (encoding.isBlock()) {
      random.nextBytes(codes);
      ByteBuffer bytes = ByteBuffer.wrap(codes).order(ByteOrder.LITTLE_ENDIAN);
      for (int block = 0; block < codes.length; block += encoding.blockBytes()) {
        setScales(bytes, block, encoding, random);
      }
    } else {
      random.nextBytes(codes);
      if (encoding == Encoding.F8_E4M3) {
        for (int i = 0; i < codes.length; i++) {
          codes[i] &=
              (byte) 0xBF; // below 2: neither NaN nor a few large numbers that decide every sum
        }
      }
    }
    scales = new float[scaleCount()];
    for (int i = 0; i < scales.length; i++) {
      scales[i] = (float) (0.01 + 0.01 * random.nextDouble());
    }
  }

  /** Scales of a block that are neither NaN nor decide every sum alone. */
  private static void setScales(
      ByteBuffer bytes, int block, Encoding encoding, SplittableRandom random) {
    switch (encoding) {
      case Q4_K -> {
        bytes.putShort(block, half(random));
        bytes.putShort(block + 2, half(random));
      }
      case Q6_K -> bytes.putShort(block + encoding.blockBytes() - 2, half(random));
      case MXFP4 -> bytes.put(block, (byte) (118 + random.nextInt(4)));
      case NVFP4 -> {
        for (int i = 0; i < 4; i++) {
          bytes.put(block + i, (byte) (16 + random.nextInt(16)));
        }
      }
      default -> bytes.putShort(block, half(random));
    }
  }

  private static short half(SplittableRandom random) {
    return Float.floatToFloat16((float) (0.01 + 0.01 * random.nextDouble()));
  }

  private int scaleCount() {
    if (work.encoding().isPlain() || work.encoding().isBlock()) {
      return 0;
    }
    return work.group() < 0
        ? 1
        : work.group() == 0 ? n : Math.toIntExact((long) n * k / work.group());
  }

  Work work() {
    return work;
  }

  int n() {
    return n;
  }

  int k() {
    return k;
  }

  /**
   * N × K codes, of four bits two a byte. NF4 has the even one in the high nibble, as bitsandbytes
   * has it.
   */
  byte[] codes() {
    return codes;
  }

  /** The scales' bytes, little-endian floats. */
  byte[] scaleBytes() {
    ByteBuffer bytes =
        ByteBuffer.allocate(scales.length * Float.BYTES).order(ByteOrder.LITTLE_ENDIAN);
    for (float scale : scales) {
      bytes.putFloat(scale);
    }
    return bytes.array();
  }

  /** Codes of one byte or one float each, as K × N. */
  byte[] transposedCodes() {
    int size = work.encoding().bits() / 8;
    byte[] transposed = new byte[codes.length];
    for (int row = 0; row < n; row++) {
      for (int column = 0; column < k; column++) {
        System.arraycopy(
            codes, (row * k + column) * size, transposed, (column * n + row) * size, size);
      }
    }
    return transposed;
  }

  /** Bytes of codes and scales. */
  long byteSize() {
    return codes.length + (long) scales.length * Float.BYTES;
  }

  /** The weight as Gatun takes it. */
  QuantizedTensor tensor(Arena arena) {
    MemorySegment data = arena.allocate(codes.length, 64).copyFrom(MemorySegment.ofArray(codes));
    Matrix.Builder matrix =
        Matrix.builder(n, k, work.encoding(), data)
            .codeOrder(work == Work.NF4 ? CodeOrder.HIGH_FIRST : CodeOrder.LOW_FIRST)
            .zeroPoint(work.zeroPoint())
            .granularity(granularity());
    if (scales.length > 0) {
      MemorySegment s = arena.allocateFrom(ValueLayout.JAVA_FLOAT, scales);
      matrix.scales(new Matrix.Values(Encoding.F32, s));
    }
    Tensor codesTensor = new Tensor("codes", DType.U8, List.of(data.byteSize()), data);
    return new QuantizedTensor(
        work.label(),
        List.of((long) n, (long) k),
        new RandomLayout(work.encoding()),
        Map.of("codes", codesTensor),
        matrix.build(),
        Encoding.F32);
  }

  private Granularity granularity() {
    if (work == Work.NF4) {
      return new Granularity.Flat(work.group());
    }
    return work.group() < 0 || work.encoding().isBlock()
        ? Granularity.perTensor(n, k)
        : work.group() == 0 ? Granularity.perChannel(k) : Granularity.perGroup(k, work.group());
  }

  /**
   * ‖y − y'‖ / ‖y'‖ over some outputs of every row, y' in doubles from the exact weights: whether
   * an engine computes what the others do.
   */
  double relativeError(float[] x, int m, float[] y) {
    double wrong = 0;
    double right = 0;
    float[] row = new float[k];
    try (Arena arena = Arena.ofConfined();
        Device reference = Device.of("reference", 1)) {
      Matrix matrix = tensor(arena).matrix();
      MemorySegment values = arena.allocate((long) k * Float.BYTES, 64);
      for (int i = 0; i < CHECKED_OUTPUTS; i++) {
        int output = (int) ((long) i * (n - 1) / (CHECKED_OUTPUTS - 1));
        reference.backend().dequantize(matrix, output, 1, values, Encoding.F32);
        MemorySegment.copy(values, ValueLayout.JAVA_FLOAT, 0, row, 0, k);
        for (int r = 0; r < m; r++) {
          double sum = 0;
          for (int j = 0; j < k; j++) {
            sum += (double) x[r * k + j] * row[j];
          }
          double difference = y[r * n + output] - sum;
          wrong += difference * difference;
          right += sum * sum;
        }
      }
    }
    return Math.sqrt(wrong / right);
  }
}
