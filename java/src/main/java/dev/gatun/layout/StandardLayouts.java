package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Operation;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

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
    for (String backend : List.of("reference", "vector", "native")) {
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
    return backend.equals("native") ? "gatun_" + verb : backend + "." + verb;
  }
}
