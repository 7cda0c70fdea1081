package dev.gatun.quantize;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.Conv2d;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.checkpoint.Golden;
import dev.gatun.checkpoint.SafetensorsFile;
import dev.gatun.checkpoint.SafetensorsWriter;
import dev.gatun.kernel.codec.Numbers;
import dev.gatun.quantize.QuantizedModel.Settings;
import dev.gatun.quantize.QuantizedModule.Kind;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class QuantizedModelTest {
  @TempDir private Path dir;

  /** The library's own file, byte for byte, from the weights that it was given. */
  @ParameterizedTest
  @CsvSource({
    "qint8_act_qint8_fp32,qint8,qint8,F32",
    "qfloat8_act_qfloat8_fp32,qfloat8,qfloat8,F32",
    "qint4_act_qint8_fp32,qint4,qint8,F32",
    "qint4_bf16,qint4,,BF16",
    "qint8_bf16,qint8,,BF16",
    "qint2_fp32,qint2,,F32"
  })
  void savesWhatQuantoSaves(String name, String weights, String activations, DType type)
      throws IOException {
    Path golden = Golden.dir("quanto", name);
    Settings settings =
        new Settings(
            Optional.of(weights),
            Optional.ofNullable(activations),
            List.of("blocks.*"),
            List.of("*proj_out", "nothing.[a-z]*"));
    try (Checkpoint floats = Checkpoint.open(originals(type));
        Checkpoint library = Checkpoint.open(golden);
        Device device = Device.of("reference", 1)) {
      QuantizedModel model = QuantizedModel.quantize(floats, settings, device);
      QuantizationMap map = QuantizationMap.of(library);
      assertThat(model.quantizationMap().modules())
          .containsExactlyInAnyOrderEntriesOf(map.modules());
      QuantizedModel theirs = QuantizedModel.requantize(library, map, device);
      assertThat(theirs.frozen()).isTrue();
      if (activations != null) {
        // The scales that the library's calibration found; CalibrationTest finds them too.
        Map<String, Calibration.Scales> scales = new LinkedHashMap<>();
        theirs
            .modules()
            .forEach(
                (module, its) ->
                    scales.put(
                        module,
                        new Calibration.Scales(
                            its.types().activationEncoding().orElseThrow(),
                            its.inputScale(),
                            its.outputScale())));
        model.adopt(scales);
      }
      model.freeze();
      model.save(dir.resolve("ours"));
      theirs.save(dir.resolve("again"));
    }
    byte[] expected = Files.readAllBytes(golden.resolve("model.safetensors"));
    assertThat(Files.readAllBytes(dir.resolve("again").resolve("model.safetensors")))
        .isEqualTo(expected);
    assertThat(Files.readAllBytes(dir.resolve("ours").resolve("model.safetensors")))
        .isEqualTo(expected);
  }

  private Path originals(DType type) {
    Map<String, String> names =
        Map.of(
            "w_to_q", "blocks.0.to_q.weight",
            "b_to_q", "blocks.0.to_q.bias",
            "w_proj", "blocks.0.proj.weight",
            "norm_w", "blocks.0.norm.weight",
            "norm_b", "blocks.0.norm.bias",
            "out_w", "proj_out.weight");
    Encoding encoding = type.encoding().orElseThrow();
    List<Tensor> tensors = new ArrayList<>();
    try (SafetensorsFile file =
        SafetensorsFile.open(Golden.file("orig", "orig", "weights.safetensors"))) {
      names.forEach(
          (from, to) -> {
            Tensor tensor = file.tensors().get(from);
            byte[] data = new byte[Math.toIntExact(tensor.elements() * type.bits() / 8)];
            for (int i = 0; i < tensor.elements(); i++) {
              float v = Numbers.get(Encoding.F32, tensor.data(), i);
              Numbers.put(encoding, MemorySegment.ofArray(data), i, v);
            }
            tensors.add(new Tensor(to, type, tensor.shape(), MemorySegment.ofArray(data)));
          });
    }
    return write(dir.resolve("floats.safetensors"), tensors);
  }

  private static Path write(Path file, List<Tensor> tensors) {
    try (SafetensorsWriter writer =
        SafetensorsWriter.create(
            file, tensors.stream().map(SafetensorsWriter.Entry::of).toList(), Map.of())) {
      tensors.forEach(tensor -> writer.write(tensor.name(), tensor.data()));
      writer.commit();
    }
    return file;
  }

  private static Tensor random(String name, Long... shape) {
    Random random = new Random(name.hashCode());
    long elements = 1;
    for (long size : shape) {
      elements *= size;
    }
    float[] values = new float[Math.toIntExact(elements)];
    for (int i = 0; i < values.length; i++) {
      values[i] = (float) random.nextGaussian();
    }
    return new Tensor(name, DType.F32, List.of(shape), MemorySegment.ofArray(values));
  }

  private Path network() {
    return write(
        dir.resolve("network.safetensors"),
        List.of(
            random("conv.weight", 6L, 4L, 3L, 3L),
            random("conv.bias", 6L),
            random("wide.weight", 8L, 64L, 1L, 2L),
            random("norm.weight", 64L),
            random("norm.bias", 64L),
            random("up.weight", 32L, 64L),
            random("up.bias", 32L),
            random("token_embedding.weight", 10L, 64L)));
  }

  @ParameterizedTest
  @ValueSource(strings = {"qint8", "qfloat8", "qint4", "qint2"})
  void goesTheWholeWayRound(String weights) {
    float[] x = new float[5 * 64];
    MemorySegment.copy(
        random("x", 5L, 64L).data(), java.lang.foreign.ValueLayout.JAVA_FLOAT, 0, x, 0, x.length);
    float[] image = new float[4 * 7 * 6];
    MemorySegment.copy(
        random("image", 4L, 7L, 6L).data(),
        java.lang.foreign.ValueLayout.JAVA_FLOAT,
        0,
        image,
        0,
        image.length);
    float[][] before = new float[2][];
    QuantizationMap map;
    try (Checkpoint floats = Checkpoint.open(network());
        Device device = Device.of("reference", 1)) {
      QuantizedModel model = QuantizedModel.quantize(floats, Settings.of(weights, "qint8"), device);
      assertThat(model.modules().keySet()).containsExactlyInAnyOrder("conv", "wide", "norm", "up");
      assertThat(model.module("norm").kind()).isEqualTo(Kind.LAYER_NORM);
      assertThat(model.module("conv").kind()).isEqualTo(Kind.CONV2D);
      assertThat(model.frozen()).isFalse();
      Calibration calibration = model.calibration();
      try (Linear up = model.observed("up", calibration)) {
        up.forward(MemorySegment.ofArray(x), 5, MemorySegment.ofArray(new float[5 * 32]));
      }
      model.adopt(calibration.scales());
      assertThat(model.module("up").inputScale()).isNotEqualTo(1);
      before[0] = run(model, x);
      before[1] = convolve(model, image);
      model.save(dir.resolve("dynamic"));
      model.freeze();
      model.save(dir.resolve("frozen"));
      map = model.quantizationMap();
    }
    for (String saved : List.of("dynamic", "frozen")) {
      try (Checkpoint checkpoint = Checkpoint.open(dir.resolve(saved));
          Device device = Device.of("reference", 1)) {
        QuantizationMap read =
            QuantizationMap.read(dir.resolve(saved).resolve(QuantizationMap.FILE));
        assertThat(read).isEqualTo(map);
        QuantizedModel model = QuantizedModel.requantize(checkpoint, read, device);
        assertThat(model.frozen()).isEqualTo(saved.equals("frozen"));
        assertThat(run(model, x)).as(saved).isEqualTo(before[0]);
        boolean shapeIsStored = !saved.equals("frozen") || !weights.matches("qint[24]");
        if (shapeIsStored || model.module("conv").kind() == Kind.CONV2D) {
          assertThat(convolve(model, image)).as(saved).isEqualTo(before[1]);
        }
        model.freeze();
        model.save(dir.resolve("again-" + saved));
      }
      assertThat(dir.resolve("again-" + saved).resolve(QuantizedModel.WEIGHTS))
          .hasSameBinaryContentAs(dir.resolve("frozen").resolve(QuantizedModel.WEIGHTS));
    }
  }

  private static float[] run(QuantizedModel model, float[] x) {
    float[] y = new float[5 * 32];
    try (Linear up = model.linear("up")) {
      up.forward(MemorySegment.ofArray(x), 5, MemorySegment.ofArray(y));
    }
    return y;
  }

  private static float[] convolve(QuantizedModel model, float[] image) {
    float[] y = new float[6 * 7 * 6];
    try (Conv2d conv = model.conv2d("conv", Conv2d.Geometry.of(1, 1))) {
      conv.forward(MemorySegment.ofArray(image), 1, 7, 6, MemorySegment.ofArray(y));
    }
    return y;
  }

  @Test
  void globsChooseModules() {
    try (Checkpoint floats = Checkpoint.open(network());
        Device device = Device.of("reference", 1)) {
      assertThat(
              QuantizedModel.quantize(floats, Settings.of("qint8").excluding("c?nv"), device)
                  .modules()
                  .keySet())
          .containsExactlyInAnyOrder("wide", "up");
      assertThat(
              QuantizedModel.quantize(floats, Settings.of("qint8").including("[!wn]*"), device)
                  .modules()
                  .keySet())
          .containsExactlyInAnyOrder("conv", "up");
      assertThatThrownBy(
              () ->
                  QuantizedModel.quantize(
                      floats, Settings.of("qint8").including("nothing"), device))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("found no module to quantize");
      QuantizationMap wrong =
          new QuantizationMap(
              Map.of("down", new QuantizationMap.Module(Optional.of("qint8"), Optional.empty())));
      assertThatThrownBy(() -> QuantizedModel.requantize(floats, wrong, device))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("module 'down': found no weight of it, expected the qint8 one");
    }
    assertThatThrownBy(() -> Settings.of("int8"))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("found type 'int8', expected one of [qint2");
  }

  @ParameterizedTest
  @CsvSource({
    "a*,abc,true", "a?c,a.c,true", "a?c,ac,false", "[ab]x,bx,true", "[!ab]x,bx,false",
    "[a-c]x,bx,true", "[x,[x,true", "a.b,a.b,true", "a.b,acb,false", "[]]x,]x,true"
  })
  void globsAreThoseOfPython(String glob, String name, boolean matches) {
    assertThat(Fnmatch.any(List.of(glob), name)).isEqualTo(matches);
  }
}
