package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import dev.gatun.kernel.MatrixValues;
import dev.gatun.kernel.codec.Numbers;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The configuration examples of the libraries' documentation, on a pipeline's directory. */
class QuantizePipelineTest {
  @TempDir Path temp;
  private Path pipeline = Path.of("");
  private Path output = Path.of("");

  @BeforeEach
  void makePipeline() throws IOException {
    pipeline = Files.createDirectories(temp.resolve("pipeline"));
    output = temp.resolve("quantized");
    Files.writeString(
        pipeline.resolve("model_index.json"),
        """
        {"_class_name": "FluxPipeline", "scheduler": ["diffusers", "Scheduler"],
         "text_encoder": ["transformers", "T5"], "transformer": ["diffusers", "Flux"],
         "vae": ["diffusers", "AutoencoderKL"], "image_encoder": [null, null]}
        """);
    component("transformer", "diffusion_pytorch_model.safetensors");
    component("text_encoder", "model.safetensors");
    component("vae", "diffusion_pytorch_model.safetensors");
    Files.createDirectories(pipeline.resolve("scheduler"));
    Files.writeString(pipeline.resolve("scheduler/scheduler_config.json"), "{}");
  }

  private void component(String name, String file) throws IOException {
    Path folder = Files.createDirectories(pipeline.resolve(name));
    Files.writeString(folder.resolve("config.json"), "{\"_class_name\": \"X\", \"n\": 1}");
    TensorFile model = TensorFile.original(DType.BF16);
    model.tensors.remove("blocks.0.edge.weight");
    model.write(folder.resolve(file));
  }

  private Path config(String text) throws IOException {
    return Files.writeString(temp.resolve("quant.json"), text.replace('\'', '"'));
  }

  private static JsonNode json(Path file) throws IOException {
    return new ObjectMapper().readTree(Files.readString(file));
  }

  private void isEqualToGolden(String component, String family, String golden) {
    TensorFile expected = TensorFile.golden(family, golden);
    Path folder = output.resolve(component);
    TensorFile found =
        TensorFile.read(
            folder.resolve(
                component.equals("transformer")
                    ? "diffusion_pytorch_model.safetensors"
                    : "model.safetensors"));
    for (String tensor : expected.names()) {
      if (!tensor.startsWith("blocks.0.edge") && !tensor.startsWith("proj_out")) {
        assertThat(found.bytes(tensor)).as(tensor).isEqualTo(expected.bytes(tensor));
      }
    }
  }

  private void isLinked(String file) throws IOException {
    assertThat(Files.isSameFile(pipeline.resolve(file), output.resolve(file))).as(file).isTrue();
  }

  @Test
  void nf4ForTwoComponents() throws Exception {
    Path config =
        config(
            "{'quant_backend':'bitsandbytes_4bit','quant_kwargs':{'load_in_4bit':true,"
                + "'bnb_4bit_quant_type':'nf4','bnb_4bit_compute_dtype':'bfloat16',"
                + "'llm_int8_skip_modules':['proj_out']},"
                + "'components_to_quantize':['transformer','text_encoder']}");
    JsonNode report =
        Cli.run("quantize", pipeline, "-o", output, "--config", config, "--json").json();
    assertThat(report.path("components").size()).isEqualTo(2);
    assertThat(report.path("components").path("transformer").path("format").asText())
        .isEqualTo("nf4");
    isEqualToGolden("transformer", "bnb", "nf4_bf16");
    isEqualToGolden("text_encoder", "bnb", "nf4_bf16");
    isLinked("vae/diffusion_pytorch_model.safetensors");
    isLinked("vae/config.json");
    isLinked("scheduler/scheduler_config.json");
    isLinked("model_index.json");
    JsonNode written = json(output.resolve("transformer/config.json"));
    assertThat(written.path("n").asInt()).isEqualTo(1);
    assertThat(written.path("quantization_config").path("bnb_4bit_quant_type").asText())
        .isEqualTo("nf4");
    assertThat(Cli.names(output))
        .containsExactly("model_index.json", "scheduler", "text_encoder", "transformer", "vae");
    assertThat(Cli.names(output.resolve("transformer")))
        .containsExactly("config.json", "diffusion_pytorch_model.safetensors");
    try (Checkpoint opened = Checkpoint.open(output)) {
      assertThat(opened.layers()).containsKey("transformer/blocks.0.to_q");
      assertThat(opened.plain()).containsKey("vae/blocks.0.to_q.weight");
    }
  }

  @Test
  void quantoForOneAndBitsAndBytesForAnother() throws Exception {
    Path config =
        config(
            "{'quant_mapping':{'transformer':{'quant_method':'quanto','weights_dtype':'int8',"
                + "'modules_to_not_convert':['proj_out']},'text_encoder':{'load_in_4bit':true,"
                + "'bnb_4bit_quant_type':'nf4','bnb_4bit_use_double_quant':true,"
                + "'llm_int8_skip_modules':['proj_out']}}}");
    Cli.run("quantize", pipeline, "-o", output, "--config", config).succeeds();
    isEqualToGolden("transformer", "quanto", "qint8_bf16");
    isEqualToGolden("text_encoder", "bnb", "nf4_nested_bf16");
    isLinked("vae/diffusion_pytorch_model.safetensors");
  }

  @Test
  void codesMayBeLabelledAsOtherNumbers() throws Exception {
    Path config =
        config(
            "{'quant_mapping':{'transformer':{'load_in_4bit':true,'bnb_4bit_quant_type':'nf4',"
                + "'bnb_4bit_compute_dtype':'bfloat16','bnb_4bit_quant_storage':'bfloat16',"
                + "'llm_int8_skip_modules':['proj_out']}}}");
    Cli.run("quantize", pipeline, "-o", output, "--config", config).succeeds();
    isEqualToGolden("transformer", "bnb", "nf4_storage_bf16");
    Path file = output.resolve("transformer/diffusion_pytorch_model.safetensors");
    Tensor codes = TensorFile.read(file).tensors.get("blocks.0.to_q.weight");
    assertThat(codes.dtype()).isEqualTo(DType.BF16);
    assertThat(codes.shape()).containsExactly(32768L, 1L);
    try (Checkpoint opened = Checkpoint.open(output)) {
      assertThat(opened.quantized("transformer/blocks.0.to_q").shape()).containsExactly(256L, 512L);
    }
  }

  @Test
  void float8ForOneCheckpoint() throws Exception {
    Path config =
        config(
            "{'quantization_config':{'quant_method':'quanto','weights_dtype':'float8',"
                + "'modules_to_not_convert':['proj_out']}}");
    Path file = Files.createDirectories(output.resolve("transformer"));
    Cli.run(
            "quantize",
            pipeline.resolve("transformer"),
            "-o",
            file.resolve("diffusion_pytorch_model.safetensors"),
            "--config",
            config)
        .succeeds();
    isEqualToGolden("transformer", "quanto", "qfloat8_e4m3fn_bf16");
  }

  @Test
  void torchaoInt4ForOneAndFloat8ForAnother() throws Exception {
    Path config =
        config(
            "{'quant_mapping':{'transformer':{'quant_method':'torchao','quant_type':'int4wo',"
                + "'quant_type_kwargs':{'group_size':128},'modules_to_not_convert':['proj_out']},"
                + "'text_encoder':{'quant_method':'torchao','quant_type':'float8wo',"
                + "'modules_to_not_convert':['proj_out']}}}");
    Cli.run("quantize", pipeline, "-o", output, "--config", config).succeeds();
    isEqualToGolden("transformer", "torchao", "int4wo_tile_g128");
    isEqualToGolden("text_encoder", "torchao", "float8wo_e5m2_bf16");
    isLinked("vae/diffusion_pytorch_model.safetensors");
    assertThat(
            json(output.resolve("transformer/config.json"))
                .path("quantization_config")
                .path("quant_type")
                .asText())
        .isEqualTo("int4wo");
    try (Checkpoint opened = Checkpoint.open(output);
        Device device = Device.best();
        Linear linear = opened.linear("transformer/blocks.0.to_q", device)) {
      float[] y = new float[256];
      float[] x = new float[512];
      x[3] = 1;
      linear.forward(MemorySegment.ofArray(x), 1, MemorySegment.ofArray(y));
      float[] column = new float[256];
      for (int row = 0; row < 256; row++) {
        column[row] =
            MatrixValues.weight(opened.quantized("transformer/blocks.0.to_q").matrix(), row, 3)
                + Numbers.get(
                    Encoding.BF16,
                    opened.bias("transformer/blocks.0.to_q").orElseThrow().data(),
                    row);
      }
      assertThat(y).containsExactly(column, within(1e-5f));
    }
  }

  @Test
  void torchaosClassesForAWholePipeline() throws Exception {
    Path config =
        config(
            "{'quant_backend':'torchao','quant_kwargs':{'quant_type':{'default':{'_type':"
                + "'Float8DynamicActivationFloat8WeightConfig','_version':2,'_data':{}}},"
                + "'modules_to_not_convert':['proj_out']},"
                + "'components_to_quantize':'transformer'}");
    Cli.run("quantize", pipeline, "-o", output, "--config", config).succeeds();
    isEqualToGolden("transformer", "torchao", "float8dq_tensor_bf16");
  }

  /** Bytes and what the metadata says of them. */
  @Test
  void torchaosIntegersOfFewBits() throws Exception {
    String form =
        "{'quant_method':'torchao','quant_type':{'default':{'_type':'IntxWeightOnlyConfig',"
            + "'_version':2,'_data':{'weight_dtype':{'_type':'torch.dtype','_data':'%s'},"
            + "'granularity':{'_type':'%s','_version':1,'_data':{%s}},'mapping_type':"
            + "{'_type':'MappingType','_data':'SYMMETRIC'},'scale_dtype':null}}},"
            + "'modules_to_not_convert':['proj_out']}";
    Path config =
        config(
            "{'quant_mapping':{'transformer':"
                + form.formatted("int4", "PerGroup", "'group_size':32")
                + ",'text_encoder':"
                + form.formatted("int8", "PerAxis", "'axis':0")
                + "}}");
    Cli.run("quantize", pipeline, "-o", output, "--config", config).succeeds();
    isEqualToGolden("transformer", "torchao", "intx_int4_g32");
    TensorFile found =
        TensorFile.read(output.resolve("transformer/diffusion_pytorch_model.safetensors"));
    assertThat(found.metadata.get("blocks.0.to_q.weight"))
        .isEqualTo(
            TensorFile.golden("torchao", "intx_int4_g32").metadata.get("blocks.0.to_q.weight"));
    try (Checkpoint opened = Checkpoint.open(output)) {
      assertThat(opened.layers())
          .containsKeys("transformer/blocks.0.to_q", "text_encoder/blocks.0.proj");
    }
  }

  @Test
  void comfysLayersMayDiffer() throws Exception {
    Path config =
        config(
            "{'layer_quant_config':{'blocks.0.to_q':{'format':'float8_e4m3fn'},"
                + "'blocks.0.proj':{'format':'int8_tensorwise'}}}");
    Path file = temp.resolve("mixed.safetensors");
    JsonNode report =
        Cli.run(
                "quantize",
                pipeline.resolve("transformer"),
                "-o",
                file,
                "--config",
                config,
                "--json")
            .json();
    assertThat(report.path("layers").findValuesAsText("format"))
        .containsExactlyInAnyOrder("float8_e4m3fn", "comfy-int8");
    try (Checkpoint opened = Checkpoint.open(file)) {
      assertThat(opened.layers().keySet())
          .containsExactlyInAnyOrder("blocks.0.to_q", "blocks.0.proj");
      assertThat(opened.plain()).containsKey("proj_out.weight");
    }
  }

  @Test
  void aSecondRunFindsNothingChanged() throws Exception {
    Path config =
        config(
            "{'quant_mapping':{'transformer':{'quant_method':'quanto','weights_dtype':'int8'}}}");
    Cli.run("quantize", pipeline, "-o", output, "--config", config).succeeds();
    List<String> before = Cli.names(output.resolve("transformer"));
    Cli.run("quantize", pipeline, "-o", output, "--config", config).succeeds();
    assertThat(Cli.names(output.resolve("transformer"))).isEqualTo(before);
  }

  @Test
  void whatCannotBeIsRefused() throws Exception {
    Path unknown = config("{'quant_mapping':{'unet':{'load_in_4bit':true}}}");
    Cli.run("quantize", pipeline, "-o", output, "--config", unknown)
        .fails("unet", "transformer", "expected");
    for (List<String> option :
        List.of(
            List.of("--convolutions"),
            List.of("--compute", "bf16"),
            List.of("--calibration", temp.toString()))) {
      List<Object> command = new ArrayList<>(List.of("quantize", pipeline, "-o", output));
      command.addAll(List.of("--config", unknown));
      command.addAll(option);
      Cli.run(command.toArray()).isMisused(option.getFirst(), "a pipeline's configuration");
    }
    Path broken = config("{'quant_mapping':{'transformer':{'load_in_4bit':true,'bits':4}}}");
    Cli.run("quantize", pipeline, "-o", output, "--config", broken).fails("transformer", "bits");
    Path model = pipeline.resolve("transformer");
    config("{'quant_mapping':{'transformer':{'load_in_4bit':true}}}");
    Cli.run("quantize", model, "-o", output, "--config", unknown).fails("model_index.json");
    Cli.run("quantize", model, "-o", output, "--config", unknown, "--format", "nf4")
        .isMisused("--format");
    Cli.run("quantize", model, "-o", output).isMisused("--format");
    Cli.run("quantize", model, "-o", output, "--dtype", "nf4", "--strategy", "per_tensor")
        .isMisused("--strategy", "per_tensor", "per_block (nf4)");
    Cli.run("quantize", model, "-o", output, "--dtype", "int9").isMisused("--dtype", "int9");
    Files.writeString(unknown, "{'a'");
    Cli.run("quantize", model, "-o", output, "--config", unknown).fails("quant.json", "JSON");
  }

  @Test
  void aTypeAndAStrategyNameAFormat() throws Exception {
    Path file = temp.resolve("typed.safetensors");
    JsonNode report =
        Cli.run(
                "quantize",
                pipeline.resolve("vae"),
                "-o",
                file,
                "--dtype",
                "fp8",
                "--strategy",
                "per_channel",
                "--json")
            .json();
    assertThat(report.path("format").asText()).isEqualTo("qfloat8_e4m3fn");
  }
}
