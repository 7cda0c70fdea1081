package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Golden files with one thing broken: one line that names file, tensor, found and expected. */
class BadCheckpointTest {
  private static final String LAYER = "blocks.0.to_q";

  @TempDir Path temp;

  /** A golden file's tensors, to be changed and written again. */
  private static final class Draft {
    final Map<String, Tensor> tensors = new LinkedHashMap<>();
    final Map<String, String> metadata = new LinkedHashMap<>();

    static Draft of(String family, String name) {
      Draft draft = new Draft();
      try (SafetensorsFile file =
          SafetensorsFile.open(Golden.file(family, name, "model.safetensors"))) {
        file.tensors()
            .forEach(
                (key, tensor) -> draft.put(key, tensor.dtype(), tensor.shape(), bytes(tensor)));
        draft.metadata.putAll(file.metadata());
      }
      return draft;
    }

    void put(String name, DType dtype, List<Long> shape, byte[] data) {
      tensors.put(name, new Tensor(name, dtype, shape, MemorySegment.ofArray(data)));
    }

    Draft without(String name) {
      assertThat(tensors.remove(name)).as(name).isNotNull();
      return this;
    }

    Path write(Path directory) {
      Path path = directory.resolve("model.safetensors");
      List<SafetensorsWriter.Entry> entries =
          new ArrayList<>(tensors.values().stream().map(SafetensorsWriter.Entry::of).toList());
      try (SafetensorsWriter writer = SafetensorsWriter.create(path, entries, metadata)) {
        tensors.forEach((name, tensor) -> writer.write(name, tensor.data()));
        writer.commit();
      }
      return path;
    }

    private static byte[] bytes(Tensor tensor) {
      return tensor.data().toArray(java.lang.foreign.ValueLayout.JAVA_BYTE);
    }
  }

  private void refused(Draft draft, String tensor, String found, String expected) {
    Path path = draft.write(temp);
    assertThatThrownBy(
            () -> {
              try (Checkpoint checkpoint = Checkpoint.open(path)) {
                checkpoint.quantized(LAYER);
              }
            })
        .isInstanceOf(GatunException.class)
        .hasMessageStartingWith(path.toString())
        .hasMessageContaining("'" + tensor)
        .hasMessageContaining("found " + found)
        .hasMessageContaining("expected " + expected)
        .hasMessageNotContaining("\n");
  }

  private static byte[] floats(float... values) {
    ByteBuffer buffer = ByteBuffer.allocate(4 * values.length).order(ByteOrder.LITTLE_ENDIAN);
    for (float value : values) {
      buffer.putFloat(value);
    }
    return buffer.array();
  }

  @ParameterizedTest
  @CsvSource({
    "comfy,float8_e4m3fn,.weight_scale",
    "comfy,float8_e4m3fn_metadata,.weight_scale",
    "comfy,float8_e4m3fn_metadata,.weight",
    "comfy,float8_legacy_scaled,.weight",
    "bnb,nf4_bf16,.weight",
    "bnb,nf4_bf16,.weight.absmax",
    "bnb,nf4_bf16,.weight.quant_map",
    "bnb,nf4_nested_bf16,.weight.nested_absmax",
    "bnb,nf4_nested_bf16,.weight.nested_quant_map",
    "quanto,qint8_bf16,.weight._scale",
    "quanto,qint4_bf16,.weight._shift",
    "comfy,nvfp4,.weight_scale_2",
    "comfy,asym_w4a8_int8,.weight_s_channel",
    "bnb,int8,.weight",
    "torchao,int8wo_group64_bf16,._weight_scale",
    "compressed_tensors,w4a16_asym_g128,.weight_shape",
    "gptq,b8_g128_sym,.scales"
  })
  void refusesAMissingPart(String family, String name, String part) {
    refused(Draft.of(family, name).without(LAYER + part), LAYER + part, "no such tensor", "");
  }

  @ParameterizedTest
  @CsvSource({
    "comfy,float8_e4m3fn,.weight_scale,NaN",
    "comfy,float8_legacy_scaled,.scale_weight,Infinity",
    "bnb,nf4_bf16,.weight.absmax,NaN",
    "bnb,nf4_nested_bf16,.weight.nested_absmax,-Infinity",
    "quanto,qint8_fp32,.weight._scale,NaN"
  })
  void refusesAScaleThatIsNoNumber(String family, String name, String part, float value) {
    Draft draft = Draft.of(family, name);
    Tensor scales = draft.tensors.get(LAYER + part);
    byte[] data = Draft.bytes(scales);
    System.arraycopy(floats(value), 0, data, data.length - 4, 4);
    draft.put(scales.name(), scales.dtype(), scales.shape(), data);
    String found = Float.isNaN(value) ? "NaN at index " : "infinity at index ";
    refused(draft, LAYER + part, found + (data.length / 4 - 1), "finite numbers");
  }

  @ParameterizedTest
  @CsvSource({
    "comfy,float8_e4m3fn,.weight_scale,F32,2,'shape [2]','one number'",
    "comfy,float8_e4m3fn,.weight,U8,131072,'U8 [131072]','F8_E4M3'",
    "bnb,nf4_bf16,.weight,U8,65535,'U8 [65535]','[65536, 1]'",
    "bnb,nf4_bf16,.weight.absmax,F32,2047,'shape [2047]','shape [2048]'",
    "bnb,nf4_bf16,.weight.absmax,U8,2048,'U8 [2048]','F32'",
    "bnb,nf4_bf16,.weight.quant_map,F32,15,'shape [15]','shape [16]'",
    "bnb,nf4_nested_bf16,.weight.absmax,F32,2048,'F32 [2048]','U8'",
    "bnb,nf4_nested_bf16,.weight.nested_absmax,F32,7,'shape [7]','shape [8]'",
    "bnb,nf4_nested_bf16,.weight.nested_quant_map,F32,255,'shape [255]','shape [256]'",
    "comfy,nvfp4,.weight_scale,F8_E4M3,100,'shape [100]','8192 elements'",
    "bnb,int8,.SCB,F32,3,'shape [3]','256 elements'",
    "quanto,qint4_bf16,.weight._shift,BF16,5,'shape [5]','1024 elements'",
    "torchao,int8wo_group64_bf16,._weight_scale,F32,7,'shape [7]','2048 elements'",
    "gptq,b8_g128_sym,.qzeros,I32,64,'shape [64]','two dimensions'",
    "quanto,qint8_bf16,.weight._scale,BF16,255,'shape [255]','shape [256, 1]'",
    "quanto,qint8_bf16,.weight._scale,I8,256,'I8 [256]','F32 or F16 or BF16'"
  })
  void refusesAPartOfAnotherTypeOrShape(
      String family,
      String name,
      String part,
      DType dtype,
      long size,
      String found,
      String expected) {
    Draft draft = Draft.of(family, name);
    draft.put(LAYER + part, dtype, List.of(size), new byte[(int) (size * dtype.bits() / 8)]);
    refused(draft, LAYER + part, found, expected);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      value = {
        "\"blocksize\": 64|\"blocksize\": 65|blocksize '65'",
        "\"blocksize\": 64|\"blocksize\": 0|blocksize '0'",
        "\"blocksize\": 64|\"blocksize\": 64.5|blocksize '64.5'",
        "\"blocksize\": 64|\"blocksize\": 18446744073709551616|blocksize",
        "\"quant_type\": \"nf4\"|\"quant_type\": \"fp4\"|quant_type",
        "\"dtype\": \"bfloat16\"|\"dtype\": \"int8\"|dtype '",
        "[256, 512]|[-256, 512]|shape '",
        "[256, 512]|null|shape '",
        "[256, 512]|[4294967296, 4294967296]|shape [4294967296, 4294967296]",
        "{\"quant_type\"|[\"quant_type\"|bad JSON",
        "\"blocksize\"|\"dtype\": \"float16\", \"blocksize\"|bad JSON (Duplicate"
      })
  void refusesAStateThatDoesNotHoldTogether(String from, String to, String found) {
    Draft draft = Draft.of("bnb", "nf4_bf16");
    String name = LAYER + ".weight.quant_state.bitsandbytes__nf4";
    String text = new String(Draft.bytes(draft.tensors.get(name)), StandardCharsets.UTF_8);
    assertThat(text).contains(from);
    byte[] changed = text.replace(from, to).getBytes(StandardCharsets.UTF_8);
    draft.put(name, DType.U8, List.of((long) changed.length), changed);
    refused(draft, name, found, "");
  }

  @Test
  void refusesAnotherShapeThanTheCodesHave() {
    Draft draft = Draft.of("bnb", "nf4_bf16");
    String name = LAYER + ".weight.quant_state.bitsandbytes__nf4";
    String text = new String(Draft.bytes(draft.tensors.get(name)), StandardCharsets.UTF_8);
    byte[] changed = text.replace("[256, 512]", "[256, 513]").getBytes(StandardCharsets.UTF_8);
    draft.put(name, DType.U8, List.of((long) changed.length), changed);
    refused(draft, LAYER + ".weight", "U8 [65536, 1]", "[65664, 1]");
  }

  @Test
  void refusesACodebookOfAnotherType() {
    Draft draft = Draft.of("bnb", "nf4_bf16");
    byte[] map = Draft.bytes(draft.tensors.get(LAYER + ".weight.quant_map"));
    System.arraycopy(floats(-0.5f), 0, map, 4, 4);
    draft.put(LAYER + ".weight.quant_map", DType.F32, List.of(16L), map);
    refused(draft, LAYER + ".weight.quant_map", "-0.5 at index 1", "-0.6961928");
  }

  @Test
  void refusesANestedOffsetThatIsNoNumber() {
    for (String bad : List.of("\"x\"", "1e999", "null")) {
      Draft draft = Draft.of("bnb", "nf4_nested_bf16");
      String name = LAYER + ".weight.quant_state.bitsandbytes__nf4";
      String text = new String(Draft.bytes(draft.tensors.get(name)), StandardCharsets.UTF_8);
      byte[] changed =
          text.replaceAll("\"nested_offset\": [0-9.]+", "\"nested_offset\": " + bad)
              .getBytes(StandardCharsets.UTF_8);
      draft.put(name, DType.U8, List.of((long) changed.length), changed);
      refused(draft, name, "nested_offset", "a finite number");
    }
  }

  @Test
  void refusesMetadataThatNamesNothing() {
    Draft draft = Draft.of("comfy", "float8_e4m3fn_metadata");
    draft.metadata.put(
        ComfyUi.METADATA, "{\"layers\": {\"gone\": {\"format\": \"float8_e4m3fn\"}}}");
    refused(draft, "gone.weight", "no such tensor", "the weight of a layer that is marked");
    draft.metadata.put(ComfyUi.METADATA, "{\"layers\": []}");
    refused(draft, ComfyUi.METADATA, "no object 'layers'", "");
    draft.metadata.put(ComfyUi.METADATA, "{");
    Path path = draft.write(temp);
    assertThatThrownBy(() -> Checkpoint.open(path))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("bad JSON");
  }

  @Test
  void anUnknownFormatOfOneLayerLeavesTheOthersUsable() {
    Draft draft = Draft.of("comfy", "float8_e4m3fn");
    byte[] mark = "{\"format\": \"int3_magic\"}".getBytes(StandardCharsets.UTF_8);
    draft.put(LAYER + ".comfy_quant", DType.U8, List.of((long) mark.length), mark);
    try (Checkpoint checkpoint = Checkpoint.open(draft.write(temp))) {
      assertThat(checkpoint.quantized("blocks.0.proj").shape()).containsExactly(96L, 1536L);
      assertThat(checkpoint.unsupported()).containsOnlyKeys(LAYER);
      assertThatThrownBy(() -> checkpoint.quantized(LAYER))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("unknown ComfyUI format 'int3_magic'");
    }
  }

  @Test
  void readsFloat8WithoutAScale() {
    Draft draft = new Draft();
    draft.put("a.weight", DType.F8_E4M3, List.of(2L, 2L), new byte[] {0x38, 0x40, 0x44, 0x48});
    draft.put("a.bias", DType.F16, List.of(2L), new byte[4]);
    try (Checkpoint checkpoint = Checkpoint.open(draft.write(temp))) {
      assertThat(checkpoint.quantized("a").matrix().scales()).isEmpty();
      assertThat(checkpoint.quantized("a").dtype()).isEqualTo(dev.gatun.Encoding.F16);
    }
    draft.put("a.weight_scale", DType.F32, List.of(2L, 1L), floats(1, 1));
    try (Checkpoint checkpoint = Checkpoint.open(draft.write(temp))) {
      assertThatThrownBy(() -> checkpoint.quantized("a"))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("'a.weight_scale'")
          .hasMessageContaining("no mark of their format");
    }
  }

  @Test
  void refusesAMapThatTheCodesContradict() throws IOException {
    Draft draft = Draft.of("quanto", "qint8_bf16");
    draft.write(temp);
    Files.writeString(
        temp.resolve("quantization_map.json"),
        "{\"" + LAYER + "\": {\"weights\": \"qfloat8_e5m2\"}}");
    refused(draft, LAYER + ".weight._data", "I8 codes", "qfloat8_e5m2");
    Files.writeString(
        temp.resolve("quantization_map.json"), "{\"gone\": {\"weights\": \"qint8\"}}");
    refused(draft, "gone.weight._data", "no such tensor", "the qint8 weight");
    Files.writeString(temp.resolve("quantization_map.json"), "[".repeat(5000));
    assertThatThrownBy(() -> Checkpoint.open(temp))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("bad JSON");
  }
}
