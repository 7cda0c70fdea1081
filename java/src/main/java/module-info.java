/**
 * Gatun: quantized checkpoints on the JVM, multiplied at native speed. Start with {@link
 * dev.gatun.checkpoint.Checkpoint} and {@link dev.gatun.Linear}.
 */
module dev.gatun {
  requires com.fasterxml.jackson.annotation;
  requires transitive com.fasterxml.jackson.databind;
  requires dev.gatun.bindings;
  requires transitive info.picocli;
  requires java.logging;
  requires static jdk.incubator.vector;
  requires jdk.management;
  requires me.tongfei.progressbar;
  requires static transitive org.jspecify;

  exports dev.gatun;
  exports dev.gatun.checkpoint;
  exports dev.gatun.cli;
  exports dev.gatun.kernel;
  exports dev.gatun.layout;
  exports dev.gatun.quantize;
  exports dev.gatun.quantize.config;

  // picocli fills annotated fields.
  opens dev.gatun.cli to
      info.picocli;

  uses dev.gatun.checkpoint.CheckpointFormat;
  uses dev.gatun.cli.Command;
  uses dev.gatun.kernel.BackendProvider;
  uses dev.gatun.layout.LayoutProvider;
  uses dev.gatun.quantize.ReportChart;

  provides dev.gatun.checkpoint.CheckpointFormat with
      dev.gatun.checkpoint.Awq,
      dev.gatun.checkpoint.BitsAndBytes,
      dev.gatun.checkpoint.BlockFloat8,
      dev.gatun.checkpoint.ComfyUi,
      dev.gatun.checkpoint.CompressedTensors,
      dev.gatun.checkpoint.Gguf,
      dev.gatun.checkpoint.Gptq,
      dev.gatun.checkpoint.Mlx,
      dev.gatun.checkpoint.PlainFloats,
      dev.gatun.checkpoint.Quanto,
      dev.gatun.checkpoint.TorchAo;
  provides dev.gatun.cli.Command with
      dev.gatun.cli.Bench,
      dev.gatun.cli.Convert,
      dev.gatun.cli.Dequantize,
      dev.gatun.cli.Doctor,
      dev.gatun.cli.Inspect,
      dev.gatun.cli.Layouts,
      dev.gatun.cli.LinearLayer,
      dev.gatun.cli.Pack,
      dev.gatun.cli.Quantize;
  provides dev.gatun.kernel.BackendProvider with
      dev.gatun.kernel.CudaProvider,
      dev.gatun.kernel.NativeProvider,
      dev.gatun.kernel.ReferenceProvider,
      dev.gatun.kernel.vector.VectorProvider;
  provides dev.gatun.layout.LayoutProvider with
      dev.gatun.layout.StandardLayouts;
}
