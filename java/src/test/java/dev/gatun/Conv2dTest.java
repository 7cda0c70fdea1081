package dev.gatun;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.Granularity;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.Layout;
import dev.gatun.layout.QuantoBytesLayout;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;

/** Convolutions against plain mathematics on the dequantized weight, on every backend. */
class Conv2dTest {
  private final Random random = new Random(7);

  /** Channels, outputs, kernel, image and geometry. */
  record Case(
      int channels, int outputs, int kh, int kw, int height, int width, Conv2d.Geometry geometry) {}

  private static final List<Case> CASES =
      List.of(
          new Case(3, 5, 3, 3, 8, 9, Conv2d.Geometry.of(1, 1)),
          new Case(4, 33, 1, 1, 5, 7, Conv2d.Geometry.DEFAULT),
          new Case(2, 3, 5, 2, 11, 6, Conv2d.Geometry.of(2, 0)),
          new Case(6, 4, 3, 3, 7, 7, Conv2d.Geometry.of(1, 2).withDilation(2).withGroups(2)),
          new Case(6, 6, 3, 3, 10, 4, Conv2d.Geometry.of(2, 1).withGroups(6)),
          new Case(1, 1, 1, 3, 1, 3, Conv2d.Geometry.DEFAULT),
          new Case(8, 16, 3, 1, 40, 41, new Conv2d.Geometry(3, 2, 4, 5, 2, 1, 4)),
          new Case(64, 32, 3, 3, 33, 31, Conv2d.Geometry.of(1, 1)));

  static Stream<Arguments> cases() {
    return Stream.of("reference", "vector", "native")
        .flatMap(backend -> CASES.stream().map(c -> Arguments.of(backend, c)));
  }

  private static Device device(String backend) {
    assumeTrue(
        Device.probe().stream().anyMatch(p -> p.backend().equals(backend) && p.available()),
        "no backend " + backend);
    return Device.of(backend, 2);
  }

  @ParameterizedTest
  @MethodSource("cases")
  void convolvesAsPlainMathematics(String backend, Case c) {
    long k = (long) c.channels / c.geometry.groups() * c.kh * c.kw;
    List<Long> shape = List.of((long) c.outputs, k / c.kh / c.kw, (long) c.kh, (long) c.kw);
    try (Device device = device(backend);
        Arena arena = Arena.ofShared()) {
      QuantizedTensor bytes = bytes(shape, k, arena);
      QuantizedTensor flat = flat(shape, k, arena);
      float[] bias = numbers(c.outputs);
      float[] x = numbers(2 * c.channels * c.height * c.width);
      for (QuantizedTensor weight : List.of(bytes, flat)) {
        double[] expected = plain(weight, bias, x, 2, c);
        try (Conv2d conv = Conv2d.of(weight, tensor(bias), c.geometry, Compute.F32, device)) {
          assertThat(conv.inChannels()).isEqualTo(c.channels);
          assertThat(conv.outChannels()).isEqualTo(c.outputs);
          float[] y = new float[expected.length];
          conv.forward(MemorySegment.ofArray(x), 2, c.height, c.width, MemorySegment.ofArray(y));
          isNear(y, expected, 1e-6 * Math.sqrt((double) k));
          // Fused with what is in y already, and with other types.
          Epilogue epilogue = new Epilogue(Epilogue.Activation.SILU, Epilogue.Combine.ADD);
          float[] again = y.clone();
          MemorySegment inPlace = MemorySegment.ofArray(again);
          conv.forward(
              MemorySegment.ofArray(x),
              Encoding.F32,
              2,
              c.height,
              c.width,
              inPlace,
              Encoding.F32,
              epilogue,
              inPlace);
          double[] fused = new double[expected.length];
          for (int i = 0; i < fused.length; i++) {
            fused[i] = expected[i] / (1 + Math.exp(-expected[i])) + y[i];
          }
          isNear(again, fused, 8e-6 * Math.sqrt((double) k));
          halves(conv, c, x, weight, bias);
        }
      }
    }
  }

  private void halves(Conv2d conv, Case c, float[] x, QuantizedTensor weight, float[] bias) {
    MemorySegment in = MemorySegment.ofArray(new byte[2 * x.length]);
    float[] rounded = new float[x.length];
    for (int i = 0; i < x.length; i++) {
      Numbers.put(Encoding.BF16, in, i, x[i]);
      rounded[i] = HalfFloat.round(Encoding.BF16, x[i]);
    }
    double[] expected = plain(weight, bias, rounded, 2, c);
    MemorySegment out = MemorySegment.ofArray(new byte[2 * expected.length]);
    conv.forward(in, Encoding.BF16, 2, c.height, c.width, out, Encoding.F16, Epilogue.NONE, null);
    float[] y = new float[expected.length];
    for (int i = 0; i < y.length; i++) {
      y[i] = Numbers.get(Encoding.F16, out, i);
    }
    isNear(y, expected, 1e-3);
  }

  /** One scale a row, int8. */
  private QuantizedTensor bytes(List<Long> shape, long k, Arena arena) {
    long n = shape.get(0);
    MemorySegment codes = arena.allocate(n * k);
    for (long i = 0; i < n * k; i++) {
      codes.set(java.lang.foreign.ValueLayout.JAVA_BYTE, i, (byte) random.nextInt(-127, 128));
    }
    MemorySegment scales = arena.allocate(4 * n, 4);
    for (long i = 0; i < n; i++) {
      Numbers.put(Encoding.F32, scales, i, 0.001f + random.nextFloat() / 100);
    }
    QuantoBytesLayout layout = new QuantoBytesLayout(Encoding.I8, true);
    Matrix matrix = layout.matrix(n, k, codes, new Matrix.Values(Encoding.F32, scales));
    return new QuantizedTensor("conv", shape, layout, Map.of(), matrix, Encoding.F32);
  }

  /** NF4 in blocks of the flattened tensor, which groups need not start with. */
  private QuantizedTensor flat(List<Long> shape, long k, Arena arena) {
    long n = shape.get(0);
    MemorySegment codes = arena.allocate(n * k / 2 + 1);
    for (long i = 0; i < codes.byteSize(); i++) {
      codes.set(java.lang.foreign.ValueLayout.JAVA_BYTE, i, (byte) random.nextInt());
    }
    MemorySegment scales = arena.allocate(4 * (n * k / 64 + 1), 4);
    for (long i = 0; i <= n * k / 64; i++) {
      Numbers.put(Encoding.F32, scales, i, 0.1f + random.nextFloat());
    }
    Matrix matrix =
        Matrix.builder(n, k, Encoding.NF4, codes)
            .granularity(new Granularity.Flat(64))
            .scales(new Matrix.Values(Encoding.F32, scales))
            .build();
    Layout layout = new dev.gatun.layout.BitsAndBytes4BitLayout(Encoding.NF4, 64, false);
    return new QuantizedTensor("conv", shape, layout, Map.of(), matrix, Encoding.F32);
  }

  private float[] numbers(int count) {
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }

  private static Tensor tensor(float[] values) {
    MemorySegment data = MemorySegment.ofArray(values);
    return new Tensor("bias", DType.F32, List.of((long) values.length), data);
  }

  private static double[] plain(
      QuantizedTensor weight, float @Nullable [] bias, float[] x, int batch, Case c) {
    Conv2d.Geometry g = c.geometry;
    int oh =
        (c.height + 2 * g.paddingHeight() - g.dilationHeight() * (c.kh - 1) - 1) / g.strideHeight()
            + 1;
    int ow =
        (c.width + 2 * g.paddingWidth() - g.dilationWidth() * (c.kw - 1) - 1) / g.strideWidth() + 1;
    int perGroup = c.channels / g.groups();
    double[] y = new double[batch * c.outputs * oh * ow];
    int at = 0;
    for (int b = 0; b < batch; b++) {
      for (int o = 0; o < c.outputs; o++) {
        float[] w = new float[perGroup * c.kh * c.kw];
        MatrixValues.row(weight.matrix(), o, 0, w.length, w);
        int group = o / (c.outputs / g.groups());
        for (int i = 0; i < oh; i++) {
          for (int j = 0; j < ow; j++) {
            double sum = bias == null ? 0 : bias[o];
            for (int t = 0; t < w.length; t++) {
              int row =
                  i * g.strideHeight() + t / c.kw % c.kh * g.dilationHeight() - g.paddingHeight();
              int column = j * g.strideWidth() + t % c.kw * g.dilationWidth() - g.paddingWidth();
              if (row >= 0 && row < c.height && column >= 0 && column < c.width) {
                int channel = group * perGroup + t / c.kw / c.kh;
                sum +=
                    (double) w[t]
                        * x[((b * c.channels + channel) * c.height + row) * c.width + column];
              }
            }
            y[at++] = sum;
          }
        }
      }
    }
    return y;
  }

  private static void isNear(float[] found, double[] expected, double bound) {
    double error = 0;
    double size = 0;
    for (int i = 0; i < found.length; i++) {
      error += (found[i] - expected[i]) * (found[i] - expected[i]);
      size += expected[i] * expected[i];
    }
    assertThat(Math.sqrt(error)).isLessThanOrEqualTo(bound * Math.sqrt(size));
  }

  @Test
  void opensFromACheckpoint(@TempDir Path dir) {
    Path file = dir.resolve("model.safetensors");
    float[] weight = numbers(4 * 3 * 3 * 3);
    float[] bias = numbers(4);
    Tensor w =
        new Tensor(
            "down.weight", DType.F32, List.of(4L, 3L, 3L, 3L), MemorySegment.ofArray(weight));
    Tensor b = new Tensor("down.bias", DType.F32, List.of(4L), MemorySegment.ofArray(bias));
    try (SafetensorsWriter writer =
        SafetensorsWriter.create(
            file, Stream.of(w, b).map(SafetensorsWriter.Entry::of).toList(), Map.of())) {
      writer.write(w.name(), w.data());
      writer.write(b.name(), b.data());
      writer.commit();
    }
    Case c = new Case(3, 4, 3, 3, 6, 5, Conv2d.Geometry.of(2, 1));
    float[] x = numbers(3 * 6 * 5);
    try (Device device = Device.of("reference", 1);
        Checkpoint checkpoint = Checkpoint.open(file);
        Conv2d conv = checkpoint.conv2d("down.weight", c.geometry, device)) {
      float[] y = new float[4 * 3 * 3];
      conv.forward(MemorySegment.ofArray(x), 1, 6, 5, MemorySegment.ofArray(y));
      isNear(y, plain(LinearFactory.plain(w), bias, x, 1, c), 1e-6);
    }
  }

  @Test
  void refusesWhatDoesNotFit() {
    try (Device device = Device.of("reference", 1);
        Arena arena = Arena.ofShared()) {
      QuantizedTensor weight = bytes(List.of(4L, 2L, 3L, 3L), 18, arena);
      assertThatThrownBy(
              () ->
                  Conv2d.of(
                      weight, null, Conv2d.Geometry.DEFAULT.withGroups(3), Compute.F32, device))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("conv: found a weight of shape [4, 2, 3, 3] for 3 groups");
      assertThatThrownBy(() -> Conv2d.Geometry.of(0, 0))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found stride 0 x 0");
      try (Conv2d conv = Conv2d.of(weight, null, Conv2d.Geometry.DEFAULT, Compute.F32, device)) {
        MemorySegment x = MemorySegment.ofArray(new float[2 * 4 * 4]);
        MemorySegment y = MemorySegment.ofArray(new float[4 * 2 * 2]);
        assertThatThrownBy(() -> conv.forward(x, 1, 2, 4, y))
            .isInstanceOf(GatunException.class)
            .hasMessageContaining(
                "found an image of 2 with padding 0, expected at least the window of 3");
        assertThatThrownBy(() -> conv.forward(x, 1, 4, 5, y))
            .isInstanceOf(IndexOutOfBoundsException.class)
            .hasMessageContaining("found x of 128 bytes, expected 160 for [1, 2, 4, 5] of F32");
        assertThatThrownBy(() -> conv.forward(x, 1, 4, 4, MemorySegment.ofArray(new float[15])))
            .isInstanceOf(IndexOutOfBoundsException.class)
            .hasMessageContaining("found y of 60 bytes, expected 64");
      }
    }
  }
}
