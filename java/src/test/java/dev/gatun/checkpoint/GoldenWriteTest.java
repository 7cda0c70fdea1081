package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.gatun.Encoding;
import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;
import dev.gatun.kernel.ReferenceBackend;
import dev.gatun.kernel.ScaleMethod;
import dev.gatun.kernel.Scaling;
import dev.gatun.kernel.codec.Numbers;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/**
 * What we write from the original weights has the names, types, shapes and bytes of the library.
 */
class GoldenWriteTest {
  private static final List<String> WEIGHTS = List.of("to_q", "proj", "edge");

  @TempDir Path temp;

  @ParameterizedTest(name = "{0}/{1} as {2}")
  @CsvSource({
    "quanto,qint4_hqq_fp32,qint4 hqq,F32",
    "comfy,float8_e4m3fn,float8_e4m3fn,BF16",
    "comfy,float8_legacy_scaled,comfy-scaled_fp8,BF16",
    "comfy,float8_e5m2_fp16,float8_e5m2,F16",
    "comfy,int8_tensorwise,comfy-int8,BF16",
    "comfy,int8_rowwise,comfy-int8-row,BF16",
    "comfy,mxfp8,comfy-mxfp8,BF16",
    "comfy,convrot_w4a4,comfy-convrot_w4a4,BF16",
    "comfy,asym_w4a8_int8,comfy-asym_w4a8_int8,BF16",
    "comfy,nvfp4,comfy-nvfp4,BF16",
    "comfy,nvfp4_fp32,comfy-nvfp4,F32",
    "bnb,nf4_bf16,nf4,BF16",
    "bnb,nf4_nested_bf16,nf4-nested,BF16",
    "bnb,fp4_fp32,fp4,F32",
    "bnb,int8,llm-int8,F16",
    "quanto,qint2_fp32,qint2,F32",
    "quanto,qint4_fp32,qint4,F32",
    "quanto,qint4_fp16,qint4,F16",
    "quanto,qint4_bf16,qint4,BF16",
    "quanto,qint8_bf16,qint8,BF16",
    "quanto,qfloat8_e5m2_fp32,qfloat8_e5m2,F32",
    "torchao,int4wo_tile_g128,torchao-int4wo,BF16",
    "torchao,int8wo_bf16,torchao-int8wo,BF16",
    "torchao,int8wo_fp32,torchao-int8wo,F32",
    "torchao,int8wo_tensor_bf16,torchao-int8wo-tensor,BF16",
    "torchao,int8wo_group64_bf16,torchao-int8wo-g64,BF16",
    "torchao,int8dq_bf16,torchao-int8dq,BF16",
    "torchao,float8wo_e4m3_bf16,torchao-float8wo_e4m3,BF16",
    "torchao,float8wo_e5m2_bf16,torchao-float8wo_e5m2,BF16",
    "torchao,float8dq_row_bf16,torchao-float8dq_e4m3_row,BF16",
    "torchao,float8dq_tensor_bf16,torchao-float8dq_e4m3_tensor,BF16"
  })
  void writesTheLibrarysBytes(String family, String name, String how, Encoding type)
      throws IOException {
    String format = how.split(" ")[0];
    Scaling scaling = how.endsWith(" hqq") ? Scaling.of(ScaleMethod.HQQ) : Scaling.DEFAULT;
    assumeTrue(Golden.cases(family).contains(name), "not among the test resources");
    LayerWriter writer =
        Checkpoint.formats().stream()
            .filter(f -> f.writes().containsKey(format))
            .findFirst()
            .orElseThrow()
            .writer(format);
    int compared = 0;
    List<Tensor> tensors = new ArrayList<>();
    List<LayerWriter.Written> written = new ArrayList<>();
    try (SafetensorsFile golden =
            SafetensorsFile.open(Golden.file(family, name, "model.safetensors"));
        SafetensorsFile originals =
            SafetensorsFile.open(Golden.file("orig", "orig", "weights.safetensors"));
        Arena arena = Arena.ofShared()) {
      for (String weight : WEIGHTS) {
        String layer = "blocks.0." + weight;
        if (golden.tensors().keySet().stream()
            .noneMatch(n -> n.startsWith(layer + ".weight") || n.startsWith(layer + "._weight"))) {
          continue;
        }
        Tensor original = cast(originals.tensors().get("w_" + weight), type, arena);
        List<Tensor> parts =
            writer.quantize(layer, original, scaling, new ReferenceBackend(), arena).tensors();
        written.add(
            new LayerWriter.Written(
                layer,
                format,
                original.dtype(),
                original.shape(),
                parts.stream().map(SafetensorsWriter.Entry::of).toList()));
        for (Tensor made : parts) {
          Tensor expected = golden.tensors().get(made.name());
          assertThat(expected).as(made.name()).isNotNull();
          assertThat(made.dtype()).as(made.name()).isEqualTo(expected.dtype());
          assertThat(made.shape()).as(made.name()).isEqualTo(expected.shape());
          boolean activation = made.name().endsWith("put_scale");
          if (!activation) {
            assertThat(made.data().mismatch(expected.data())).as(made.name()).isEqualTo(-1);
          }
          tensors.add(made);
          compared++;
        }
      }
      assertThat(compared).isGreaterThanOrEqualTo(4);
      writer
          .metadata(written, List.of())
          .forEach(
              (key, value) -> {
                if (key.endsWith(".weight")) { // torchao describes every weight there
                  assertThat(value).as(key).isEqualTo(golden.metadata().get(key));
                }
              });
      readsBack(tensors, written, writer, Golden.dir(family, name));
    }
  }

  /** The file that we write opens again with the codes of the library's. */
  private void readsBack(
      List<Tensor> tensors, List<LayerWriter.Written> written, LayerWriter writer, Path golden)
      throws IOException {
    Path path = temp.resolve("model.safetensors");
    Map<String, String> metadata = new LinkedHashMap<>(writer.metadata(written, List.of()));
    try (SafetensorsWriter out =
        SafetensorsWriter.create(
            path, tensors.stream().map(SafetensorsWriter.Entry::of).toList(), metadata)) {
      tensors.forEach(t -> out.write(t.name(), t.data()));
      out.commit();
    }
    for (Map.Entry<String, String> sidecar : writer.sidecars(written).entrySet()) {
      Files.writeString(temp.resolve(sidecar.getKey()), sidecar.getValue());
    }
    try (Checkpoint mine = Checkpoint.open(path);
        Checkpoint theirs = Checkpoint.open(golden)) {
      assertThat(mine.layers()).isNotEmpty();
      for (String layer : mine.layers().keySet()) {
        QuantizedTensor a = mine.quantized(layer);
        QuantizedTensor b = theirs.quantized(layer);
        assertThat(a.layout().name()).isEqualTo(b.layout().name());
        assertThat(a.matrix().codes().mismatch(b.matrix().codes())).isEqualTo(-1);
      }
    }
  }

  private static Tensor cast(Tensor original, Encoding type, Arena arena) {
    DType dtype = DType.valueOf(type.name());
    MemorySegment data = arena.allocate(original.elements() * (type.bits() / 8), 64);
    for (long i = 0; i < original.elements(); i++) {
      Numbers.put(type, data, i, Numbers.get(Encoding.F32, original.data(), i));
    }
    return new Tensor(original.name(), dtype, original.shape(), data);
  }
}
