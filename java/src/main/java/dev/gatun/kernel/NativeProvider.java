package dev.gatun.kernel;

import dev.gatun.GatunException;
import dev.gatun.bindings.NativeLibrary;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;

/** The backend in C, where libgatun is found. */
public final class NativeProvider implements BackendProvider {
  /** For {@link java.util.ServiceLoader}. */
  public NativeProvider() {}

  @Override
  public String name() {
    return "native";
  }

  @Override
  public int rank() {
    return 20;
  }

  @Override
  public Availability probe() {
    return switch (NativeLibrary.load()) {
      case NativeLibrary.Missing missing -> new Availability(false, missing.describe());
      case NativeLibrary.Loaded loaded -> Probe.of(loaded);
    };
  }

  @Override
  public Backend create(int threads) {
    Availability found = probe();
    if (!found.available()) {
      throw new GatunException("native: " + found.detail());
    }
    return new NativeBackend(threads, gatun_h.GATUN_ISA_BEST());
  }

  /** Touches the bindings, once the library is there. */
  private static final class Probe {
    static Availability of(NativeLibrary.Loaded loaded) {
      try (Arena arena = Arena.ofConfined()) {
        MemorySegment isa = arena.allocate(ValueLayout.JAVA_INT);
        int status = gatun_h.gatun_isa_default(isa);
        if (status != gatun_h.GATUN_OK()) {
          return new Availability(false, NativeCalls.detail(status));
        }
        return new Availability(
            true,
            "libgatun "
                + gatun_h.gatun_version().getString(0)
                + " at "
                + loaded.path()
                + ", "
                + NativeBackend.isaName(isa.get(ValueLayout.JAVA_INT, 0)));
      }
    }
  }
}
