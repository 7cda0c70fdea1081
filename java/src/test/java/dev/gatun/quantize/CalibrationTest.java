package dev.gatun.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.QuantizedTensor;
import dev.gatun.Rounding;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import dev.gatun.checkpoint.SafetensorsFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.layout.GenericOperations;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

class CalibrationTest {
  static Stream<String> calibrated() {
    return Golden.cases("quanto").stream()
        .filter(name -> Golden.description("quanto", name).has("calibration"));
  }

  /**
   * The library's scales after each of three batches, inputs with another momentum than outputs.
   */
  @ParameterizedTest
  @MethodSource("calibrated")
  void findsTheScalesThatQuantoFound(String name) {
    JsonNode description = Golden.description("quanto", name);
    double momentum = description.path("calibration").path("momentum_arg").asDouble();
    Encoding encoding = name.contains("qfloat8") ? Encoding.F8_E4M3 : Encoding.I8;
    Calibration calibration =
        new Calibration(
            new Calibration.Settings(
                encoding, Calibration.Method.MOMENTUM, momentum, 99.99, false));
    try (Checkpoint checkpoint = Checkpoint.open(Golden.dir("quanto", name));
        Device device = Device.of("reference", 2);
        SafetensorsFile inputs =
            SafetensorsFile.open(Golden.file("orig", "orig", "inputs.safetensors"))) {
      for (String weight : List.of("to_q", "proj")) {
        Tensor x = inputs.tensors().get("x_" + weight);
        QuantizedTensor q = checkpoint.quantized("blocks.0." + weight);
        if (q.matrix().k() != x.shape().get(1)) { // quanto does not store the shape
          long k = x.shape().get(1);
          q = GenericOperations.reshape(q, List.of(q.matrix().n() * q.matrix().k() / k, k));
        }
        JsonNode steps =
            description.path("calibration").path("scales_after_step[input,output]").path(weight);
        try (Linear linear =
            calibration.linear(q, checkpoint.bias(q.name()).orElse(null), device)) {
          for (int step = 0; step < steps.size(); step++) {
            long rows = x.shape().get(0);
            float[] input = new float[Math.toIntExact(x.elements())];
            for (int i = 0; i < input.length; i++) {
              input[i] = Numbers.get(Encoding.F32, x.data(), i) * (1 + step);
            }
            float[] y = new float[Math.toIntExact(rows * linear.outFeatures())];
            linear.forward(MemorySegment.ofArray(input), rows, MemorySegment.ofArray(y));
            Calibration.Scales scales = calibration.scales().get(q.name());
            assertThat(scales.input()).isEqualTo((float) steps.get(step).get(0).asDouble());
            float output = (float) steps.get(step).get(1).asDouble();
            assertThat(scales.output()).isEqualTo(output, within(2e-6f * output));
          }
        }
        // These are what the library wrote into the file.
        Rounding stored = q.inputRounding().orElseThrow();
        assertThat(calibration.scales().get(q.name()).input()).isEqualTo(stored.scale());
      }
    }
  }

  /** quanto calibrates layer norms too: on the same x, before rounding. */
  @ParameterizedTest
  @MethodSource("calibrated")
  void seesModulesThatAreNoLinearLayers(String name) {
    Encoding encoding = name.contains("qfloat8") ? Encoding.F8_E4M3 : Encoding.I8;
    Calibration calibration = new Calibration(Calibration.Settings.quanto(encoding));
    try (Checkpoint checkpoint = Checkpoint.open(Golden.dir("quanto", name));
        SafetensorsFile inputs =
            SafetensorsFile.open(Golden.file("orig", "orig", "inputs.safetensors"))) {
      float[] weight = floats(checkpoint.tensor("blocks.0.norm.weight"));
      float[] bias = floats(checkpoint.tensor("blocks.0.norm.bias"));
      float[] input = floats(inputs.tensors().get("x_to_q"));
      int width = weight.length;
      for (int step = 0; step < 3; step++) {
        float[] x = input.clone();
        float[] y = new float[x.length];
        for (int at = 0; at < x.length; at += width) {
          double mean = 0;
          double squares = 0;
          for (int i = at; i < at + width; i++) {
            x[i] *= 1 + step;
            mean += (double) x[i] / width;
          }
          for (int i = at; i < at + width; i++) {
            squares += (x[i] - mean) * (x[i] - mean) / width;
          }
          for (int i = at; i < at + width; i++) {
            double normal = (x[i] - mean) / Math.sqrt(squares + 1e-5);
            y[i] = (float) (normal * weight[i - at] + bias[i - at]);
          }
        }
        calibration.see("blocks.0.norm", x, y);
      }
      Calibration.Scales found = calibration.scales().get("blocks.0.norm");
      float in = floats(checkpoint.tensor("blocks.0.norm.input_scale"))[0];
      float out = floats(checkpoint.tensor("blocks.0.norm.output_scale"))[0];
      assertThat(found.input()).isEqualTo(in);
      assertThat(found.output()).isEqualTo(out, within(1e-4f * out));
    }
  }

  private static float[] floats(Tensor tensor) {
    float[] values = new float[Math.toIntExact(tensor.elements())];
    for (int i = 0; i < values.length; i++) {
      values[i] = Numbers.get(Encoding.F32, tensor.data(), i);
    }
    return values;
  }

  @Test
  void scalesAreKeptAsJson(@TempDir Path dir) throws Exception {
    Map<String, Calibration.Scales> scales =
        Map.of("a.b", new Calibration.Scales(Encoding.F8_E4M3, 0.1f, 3.5f));
    ActivationScales.save(scales, dir);
    assertThat(ActivationScales.read(dir)).isEqualTo(scales);
    for (String bad :
        List.of(
            "{\"a\": {\"activations\": \"I8\", \"input_scale\": 0, \"output_scale\": 1}}",
            "{\"a\": {\"activations\": \"I4\", \"input_scale\": 1, \"output_scale\": 1}}",
            "{\"a\": 3}",
            "{}",
            "[")) {
      Files.writeString(dir.resolve(ActivationScales.FILE), bad);
      assertThatThrownBy(() -> ActivationScales.read(dir))
          .as(bad)
          .isInstanceOf(GatunException.class)
          .hasMessageContaining(ActivationScales.FILE);
    }
  }

  @Test
  void percentilesClipWhatLiesBeyond() {
    float[] values = new float[100_000];
    Random random = new Random(5);
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian() * (i < 1000 ? 0.01f : 1);
    }
    values[50_000] = -1000;
    RangeObserver observer = new RangeObserver.Percentile(Encoding.I8, 99);
    for (int from = 0; from < values.length; from += 1000) { // the range grows on the way
      observer.observe(Arrays.copyOfRange(values, from, from + 1000), 1000, Encoding.F32);
    }
    float[] sorted = new float[values.length];
    for (int i = 0; i < values.length; i++) {
      sorted[i] = Math.abs(values[i]);
    }
    Arrays.sort(sorted);
    float exact = sorted[(int) (0.99 * values.length) - 1];
    float bin = 2048f / Histogram.BINS; // the outlier's range over the bins
    assertThat(observer.scale() * 127).isBetween(exact, exact + bin);
    assertThat(new RangeObserver.Percentile(Encoding.I8, 100))
        .satisfies(
            all -> {
              all.observe(values, values.length, Encoding.F32);
              assertThat(all.scale()).isEqualTo(1000 / 127f);
            });
  }

  @Test
  void theHistogramsScaleHasLessErrorThanAbsmax() {
    float[] values = new float[200_000];
    Random random = new Random(6);
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    values[7] = 30; // an outlier that costs all others resolution
    RangeObserver least = new RangeObserver.LeastError(Encoding.I8);
    RangeObserver absmax = new RangeObserver.AbsMax(Encoding.I8);
    least.observe(values, values.length, Encoding.F32);
    absmax.observe(values, values.length, Encoding.F32);
    assertThat(absmax.scale()).isEqualTo(30 / 127f);
    assertThat(error(values, least.scale())).isLessThan(0.5 * error(values, absmax.scale()));
  }

  private static double error(float[] values, float scale) {
    Rounding rounding = new Rounding(Encoding.I8, scale, false);
    double sum = 0;
    for (float v : values) {
      sum += Math.pow((double) v - rounding.round(Encoding.F32, v), 2);
    }
    return sum;
  }

  @ParameterizedTest
  @EnumSource(Calibration.Method.class)
  void zerosAloneHaveTheScaleOne(Calibration.Method method) {
    RangeObserver observer =
        RangeObserver.of(Calibration.Settings.of(Encoding.F8_E4M3, method), Encoding.F8_E4M3, 0.9);
    assertThat(observer.scale()).isEqualTo(1);
    observer.observe(new float[10], 10, Encoding.F32);
    assertThat(observer.scale()).isEqualTo(1);
    observer.observe(new float[] {0, 224}, 2, Encoding.F32);
    assertThat(observer.scale()).isPositive().isLessThanOrEqualTo(0.5f);
  }

  /** One row in thirty has a number that is a hundred times as large: all others count more. */
  @Test
  void theScaleThatMovesOutputsLeastClipsAnOutlier(@TempDir Path dir) {
    Path floats = floats(dir.resolve("floats.safetensors"));
    float[] x = numbers(30 * 64, 3);
    x[7] = 100 * largestOfColumn(x, 1, 0);
    Map<Calibration.Method, Float> scales = new EnumMap<>(Calibration.Method.class);
    try (Device device = Device.of("reference", 1);
        Checkpoint source = Checkpoint.open(floats)) {
      for (Calibration.Method method : Calibration.Method.values()) {
        Calibration calibration = new Calibration(Calibration.Settings.of(Encoding.I8, method));
        try (Linear linear = calibration.linear(source, "up", device)) {
          linear.forward(MemorySegment.ofArray(x), 30, MemorySegment.ofArray(new float[30 * 32]));
        }
        scales.put(method, calibration.scales().get("up").input());
      }
      float chosen = scales.get(Calibration.Method.OUTPUT_ERROR);
      float widest = scales.get(Calibration.Method.ABSMAX);
      assertThat(chosen).isLessThan(widest / 16);
      try (Linear linear = source.linear("up", device)) {
        OutputError error = new OutputError(linear, x, device.backend());
        assertThat(error.best(widest * 127, Encoding.I8, false).scale()).isEqualTo(chosen);
      }
    }
  }

  /** ComfyUI's fp8: written, opened again, and run without looking at x. */
  @Test
  void scalesAreWrittenWhereTheFormatHasThem(@TempDir Path dir) throws Exception {
    Path floats = floats(dir.resolve("floats.safetensors"));
    for (String format : List.of("float8_e4m3fn", "qint8", "qfloat8_e4m3fn")) {
      Encoding encoding = format.equals("qint8") ? Encoding.I8 : Encoding.F8_E4M3;
      Path quantized = Files.createDirectory(dir.resolve(format)).resolve("model.safetensors");
      Path target = Files.createDirectory(dir.resolve(format + "-static")).resolve("m.safetensors");
      float[] x = numbers(9 * 64, 3);
      float[] dynamic = new float[9 * 32];
      float[] fixed = new float[9 * 32];
      Epilogue gelu = Epilogue.of(Epilogue.Activation.GELU);
      try (Device device = Device.of("reference", 1);
          Checkpoint source = Checkpoint.open(floats)) {
        Quantizer.quantize(
            source, quantized, format, NameFilter.DEFAULT, device.backend(), ProgressListener.NONE);
        try (Checkpoint checkpoint = Checkpoint.open(quantized)) {
          Calibration calibration =
              new Calibration(Calibration.Settings.of(encoding, Calibration.Method.ABSMAX));
          try (Linear linear = calibration.linear(checkpoint, "up.weight", device)) {
            linear.forward(MemorySegment.ofArray(x), 9, MemorySegment.ofArray(dynamic), gelu, null);
          }
          ActivationScales.write(checkpoint, calibration.scales(), target);
          assertThat(calibration.columns("up"))
              .hasValueSatisfying(
                  columns -> assertThat(columns[0]).isEqualTo(largestOfColumn(x, 64, 0)));
        }
        try (Checkpoint checkpoint = Checkpoint.open(target);
            Linear linear =
                checkpoint.linear(
                    "up", encoding == Encoding.I8 ? Compute.I8_STATIC : Compute.F8, device)) {
          QuantizedTensor weight = checkpoint.quantized("up");
          float absmax = largestOfColumn(x, 1, 0);
          assertThat(weight.inputRounding().orElseThrow().scale())
              .isEqualTo(absmax / Rounding.largest(encoding));
          linear.forward(MemorySegment.ofArray(x), 9, MemorySegment.ofArray(fixed), gelu, null);
        }
      }
      double step = format.startsWith("q") ? 0.02 : 1e-5; // quanto rounds y as well
      for (int i = 0; i < fixed.length; i++) {
        assertThat(fixed[i])
            .as("%s %d", format, i)
            .isEqualTo(dynamic[i], within((float) (step * 4 + Math.abs(dynamic[i]) * step * 4)));
      }
    }
  }

  private static float largestOfColumn(float[] x, int stride, int column) {
    float largest = 0;
    for (int i = column; i < x.length; i += stride) {
      largest = Math.max(largest, Math.abs(x[i]));
    }
    return largest;
  }

  /** A column of large activations costs int8 most of its precision until it is smoothed away. */
  @Test
  void smoothingKeepsProductsAndLowersTheError(@TempDir Path dir) {
    Path floats = floats(dir.resolve("floats.safetensors"));
    Path smooth = dir.resolve("smooth.safetensors");
    float[] x = numbers(16 * 64, 4);
    for (int i = 5; i < x.length; i += 64) {
      x[i] *= 100;
    }
    double[] errors = new double[2];
    try (Device device = Device.of("reference", 1);
        Checkpoint source = Checkpoint.open(floats)) {
      float[] exact = new float[16 * 32];
      Calibration calibration =
          new Calibration(Calibration.Settings.of(Encoding.I8, Calibration.Method.ABSMAX));
      try (Linear plain = source.linear("up", device);
          Linear observed = calibration.linear(source, "up", device)) {
        plain.forward(MemorySegment.ofArray(x), 16, MemorySegment.ofArray(exact));
        observed.forward(
            MemorySegment.ofArray(x), 16, MemorySegment.ofArray(new float[exact.length]));
      }
      float[] s =
          SmoothQuant.factors(
              calibration.columns("up").orElseThrow(), source.tensor("up.weight"), 0.5);
      assertThat(s[5]).isGreaterThan(3 * s[6]);
      SmoothQuant.write(source, Map.of("up", s), smooth);
      List<Path> files = new ArrayList<>(List.of(floats, smooth));
      for (int i = 0; i < 2; i++) {
        Path quantized = dir.resolve("int8-" + i + ".safetensors");
        try (Checkpoint from = Checkpoint.open(files.get(i))) {
          Quantizer.quantize(
              from,
              quantized,
              "comfy-int8-row",
              NameFilter.DEFAULT,
              device.backend(),
              ProgressListener.NONE);
        }
        try (Checkpoint checkpoint = Checkpoint.open(quantized);
            Linear linear = checkpoint.linear("up", Compute.I8, device)) {
          assertThat(checkpoint.quantized("up").inputMultiplier().isPresent()).isEqualTo(i == 1);
          float[] y = new float[exact.length];
          linear.forward(MemorySegment.ofArray(x), 16, MemorySegment.ofArray(y));
          for (int j = 0; j < y.length; j++) {
            errors[i] += Math.pow((double) y[j] - exact[j], 2);
          }
        }
      }
    }
    assertThat(errors[1]).isLessThan(errors[0] / 3);
  }

  @Test
  void refusesWhatHasNoPlaceForScales(@TempDir Path dir) {
    Path floats = floats(dir.resolve("floats.safetensors"));
    Path quantized = dir.resolve("nf4.safetensors");
    try (Device device = Device.of("reference", 1);
        Checkpoint source = Checkpoint.open(floats)) {
      Quantizer.quantize(
          source, quantized, "nf4", NameFilter.DEFAULT, device.backend(), ProgressListener.NONE);
      try (Checkpoint checkpoint = Checkpoint.open(quantized)) {
        Map<String, Calibration.Scales> scales =
            Map.of("up", new Calibration.Scales(Encoding.I8, 0.5f, 0.5f));
        assertThatThrownBy(
                () -> ActivationScales.write(checkpoint, scales, dir.resolve("x.safetensors")))
            .isInstanceOf(GatunException.class)
            .hasMessageContaining(
                "layer 'up': found bitsandbytes.nf4 with scales of I8 activations");
        assertThat(dir.resolve("x.safetensors")).doesNotExist();
      }
    }
    assertThatThrownBy(() -> Calibration.Settings.quanto(Encoding.I4))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("found I4, expected I8 or an 8-bit float");
  }

  private static Path floats(Path file) {
    float[] weight = numbers(32 * 64, 1);
    float[] bias = numbers(32, 2);
    Tensor w = new Tensor("up.weight", DType.F32, List.of(32L, 64L), MemorySegment.ofArray(weight));
    Tensor b = new Tensor("up.bias", DType.F32, List.of(32L), MemorySegment.ofArray(bias));
    try (SafetensorsWriter writer =
        SafetensorsWriter.create(
            file, Stream.of(w, b).map(SafetensorsWriter.Entry::of).toList(), Map.of())) {
      writer.write(w.name(), w.data());
      writer.write(b.name(), b.data());
      writer.commit();
    }
    return file;
  }

  private static float[] numbers(int count, int seed) {
    Random random = new Random(seed);
    float[] values = new float[count];
    for (int i = 0; i < count; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return values;
  }
}
