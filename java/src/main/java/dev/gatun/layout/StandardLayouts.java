package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Operation;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Stream;

/**
 * The layouts that come with the library, and one entry point per operation and backend that serves
 * them all.
 */
public final class StandardLayouts implements LayoutProvider {
  private record Standard(Operation operation, String backend, String name) implements EntryPoint {}

  /** For {@link java.util.ServiceLoader}. */
  public StandardLayouts() {}

  @Override
  public void register(LayoutRegistry.Registrar registrar) {
    for (Encoding e : List.of(Encoding.F32, Encoding.F16, Encoding.BF16)) {
      registrar.layout("safetensors", new PlainLayout(e));
    }
    layouts().forEach((format, layouts) -> layouts.forEach(l -> registrar.layout(format, l)));
    for (String backend : List.of("reference", "vector", "native", "cuda")) {
      registrar.entryPoint(new BitsAndBytesInt8Layout().name(), new OutlierLinear(backend));
      for (Operation operation : Operation.values()) {
        if (operation != Operation.CONVERT) { // of plain numbers, not of a layout
          registrar.entryPoint(
              LayoutRegistry.ANY, new Standard(operation, backend, name(operation, backend)));
        }
      }
    }
  }

  /** By checkpoint format, one of each name: what varies from tensor to tensor is an example. */
  private static Map<String, List<Layout>> layouts() {
    Map<String, List<Layout>> layouts = new LinkedHashMap<>();
    layouts.put(
        "comfyui",
        List.of(
            new ComfyFloat8Layout(Encoding.F8_E4M3, true),
            new ComfyFloat8Layout(Encoding.F8_E5M2, true),
            new ComfyBlockLayout(Encoding.F4_E2M1),
            new ComfyBlockLayout(Encoding.F8_E4M3),
            new ComfyInt8Layout(true, 0),
            new ComfyRotatedInt4Layout(256),
            new ComfyCodebookLayout(16, 256),
            new ComfyAwqLayout(64)));
    layouts.put(
        "bitsandbytes",
        List.of(
            new BitsAndBytes4BitLayout(Encoding.NF4, 64, false),
            new BitsAndBytes4BitLayout(Encoding.FP4, 64, false),
            new BitsAndBytesInt8Layout()));
    layouts.put(
        "quanto",
        List.of(
            new QuantoBitsLayout(2, 128),
            new QuantoBitsLayout(4, 128),
            new QuantoBytesLayout(Encoding.I8, true),
            new QuantoBytesLayout(Encoding.F8_E4M3, true),
            new QuantoBytesLayout(Encoding.F8_E4M3FNUZ, true),
            new QuantoBytesLayout(Encoding.F8_E5M2, true)));
    layouts.put(
        "torchao",
        List.of(
            new TorchAoLayout("Int8Tensor", Encoding.I8),
            new TorchAoLayout("Float8Tensor", Encoding.F8_E4M3),
            new TorchAoLayout("Int4Tensor", Encoding.I4),
            new TorchAoLayout("Int4TilePackedTo4dTensor", Encoding.U4),
            new TorchAoLayout("Int4PlainInt32Tensor", Encoding.U4),
            new TorchAoLayout("IntxUnpackedToInt8Tensor", Encoding.I8),
            new TorchAoLayout("MXTensor", Encoding.F4_E2M1),
            new TorchAoLayout("NVFP4Tensor", Encoding.F4_E2M1)));
    layouts.put(
        "compressed-tensors",
        List.of(
            new CompressedTensorsLayout("pack-quantized", Encoding.U4),
            new CompressedTensorsLayout("int-quantized", Encoding.I8),
            new CompressedTensorsLayout("float-quantized", Encoding.F8_E4M3),
            new CompressedTensorsLayout("nvfp4-pack-quantized", Encoding.F4_E2M1),
            new CompressedTensorsLayout("mxfp4-pack-quantized", Encoding.F4_E2M1)));
    layouts.put("awq", List.of(new AwqLayout(false, 128), new AwqLayout(true, 128)));
    layouts.put("gptq", Stream.of(2, 3, 4, 8).<Layout>map(b -> new GptqLayout(b, 128)).toList());
    layouts.put(
        "mlx",
        Stream.concat(
                Stream.of(2, 3, 4, 5, 6, 8).map(b -> new MlxLayout("affine", b, 64)),
                Stream.of(
                    new MlxLayout("mxfp4", 4, 32),
                    new MlxLayout("mxfp8", 8, 32),
                    new MlxLayout("nvfp4", 4, 16)))
            .<Layout>map(l -> l)
            .toList());
    layouts.put("fp8-block", List.of(new BlockFloat8Layout(128, 128)));
    layouts.put(
        "gguf",
        Arrays.stream(Encoding.values())
            .filter(Encoding::isBlock)
            .<Layout>map(GgufLayout::new)
            .toList());
    return layouts;
  }

  /** The C function's name where there is one. */
  private static String name(Operation operation, String backend) {
    String verb = operation.name().toLowerCase(Locale.ROOT);
    return switch (backend) {
      case "native" -> "gatun_" + verb;
      case "cuda" -> "gatun_cuda_" + verb;
      default -> backend + "." + verb;
    };
  }
}
