package dev.gatun.layout;

import dev.gatun.Encoding;
import dev.gatun.kernel.Operation;
import java.util.List;
import java.util.Locale;

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
    for (Encoding e : List.of(Encoding.F8_E4M3, Encoding.F8_E5M2)) {
      registrar.layout("comfyui", new ComfyFloat8Layout(e, true));
    }
    for (Encoding e : List.of(Encoding.NF4, Encoding.FP4)) {
      registrar.layout("bitsandbytes", new BitsAndBytes4BitLayout(e, 64, false));
    }
    for (Encoding e :
        List.of(Encoding.I8, Encoding.F8_E4M3, Encoding.F8_E4M3FNUZ, Encoding.F8_E5M2)) {
      registrar.layout("quanto", new QuantoBytesLayout(e, true));
    }
    for (Encoding e : Encoding.values()) {
      if (e.isBlock()) {
        registrar.layout("gguf", new GgufLayout(e));
      }
    }
    for (String backend : List.of("reference", "vector", "native")) {
      for (Operation operation : Operation.values()) {
        if (operation != Operation.CONVERT) { // of plain numbers, not of a layout
          registrar.entryPoint(
              LayoutRegistry.ANY, new Standard(operation, backend, name(operation, backend)));
        }
      }
    }
  }

  /** The C function's name where there is one. */
  private static String name(Operation operation, String backend) {
    String verb = operation.name().toLowerCase(Locale.ROOT);
    return backend.equals("native") ? "gatun_" + verb : backend + "." + verb;
  }
}
