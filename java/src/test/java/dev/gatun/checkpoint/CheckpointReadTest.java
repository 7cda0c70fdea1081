package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class CheckpointReadTest {
  private static Checkpoint open(String family, String name) {
    return Checkpoint.open(Golden.dir(family, name));
  }

  @ParameterizedTest
  @CsvSource({
    "comfy,float8_e4m3fn,comfyui.float8_e4m3fn,BF16",
    "comfy,float8_e4m3fn_metadata,comfyui.float8_e4m3fn,BF16",
    "comfy,float8_legacy_scaled,comfyui.float8_e4m3fn,BF16",
    "comfy,float8_e5m2_fp16,comfyui.float8_e5m2,F16",
    "comfy,nvfp4,comfyui.nvfp4,BF16",
    "bnb,int8,bitsandbytes.int8,F32",
    "quanto,qint4_bf16,quanto.qint4,BF16",
    "bnb,nf4_bf16,bitsandbytes.nf4,BF16",
    "bnb,nf4_nested_fp16,bitsandbytes.nf4,F16",
    "bnb,nf4_storage_bf16,bitsandbytes.nf4,BF16",
    "bnb,sharded,bitsandbytes.nf4,BF16",
    "bnb,fp4_fp32,bitsandbytes.fp4,F32",
    "quanto,qint8_bf16,quanto.qint8,BF16",
    "quanto,qfloat8_e4m3fn_bf16,quanto.qfloat8_e4m3fn,BF16",
    "quanto,qfloat8_e4m3fnuz_fp32,quanto.qfloat8_e4m3fnuz,F32",
    "quanto,qfloat8_e5m2_fp32,quanto.qfloat8_e5m2,F32"
  })
  void findsTheLayers(String family, String name, String layout, Encoding dtype) {
    try (Checkpoint checkpoint = open(family, name)) {
      assertThat(checkpoint.layers()).containsKeys("blocks.0.to_q", "blocks.0.proj");
      for (String layer : checkpoint.layers().keySet()) {
        QuantizedTensor weight = checkpoint.quantized(layer + ".weight");
        assertThat(weight.layout().name()).isEqualTo(layout);
        assertThat(weight.dtype()).isEqualTo(dtype);
        assertThat(checkpoint.format(layer))
            .get()
            .extracting(CheckpointFormat::name)
            .isEqualTo(prefix(layout));
      }
      QuantizedTensor toQ = checkpoint.quantized("blocks.0.to_q");
      assertThat(toQ.shape()).isEqualTo(List.of(256L, 512L));
      assertThat(checkpoint.bias("blocks.0.to_q")).isPresent();
      assertThat(checkpoint.bias("blocks.0.proj")).isEmpty();
      assertThat(checkpoint.unclaimed()).isEmpty();
      assertThat(checkpoint.unsupported()).isEmpty();
      assertThat(checkpoint.plain())
          .containsOnlyKeys(
              "blocks.0.norm.bias",
              "blocks.0.norm.weight",
              "blocks.0.to_q.bias",
              "proj_out.weight");
    }
  }

  private static String prefix(String layout) {
    return layout.substring(0, layout.indexOf('.'));
  }

  @Test
  void listsNearNames() {
    try (Checkpoint checkpoint = open("bnb", "nf4_bf16")) {
      assertThatThrownBy(() -> checkpoint.quantized("blocks.0.to_k"))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("no layer 'blocks.0.to_k'")
          .hasMessageContaining("'blocks.0.to_q'");
      assertThatThrownBy(() -> checkpoint.tensor("nothing"))
          .isInstanceOf(GatunException.class)
          .hasMessageContaining("no tensor 'nothing'");
    }
  }

  @Test
  void isClosedOnce() {
    Checkpoint checkpoint = open("bnb", "nf4_bf16");
    Path path = checkpoint.path();
    checkpoint.close();
    checkpoint.close();
    assertThatThrownBy(checkpoint::tensors)
        .isInstanceOf(IllegalStateException.class)
        .hasMessageContaining(path.toString());
  }
}
