package dev.gatun.bench.peers;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;

import dev.gatun.GatunException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * ggml's CPU engine, from the {@code libggml-cpu.so} that {@code -Dgatun.ggml} names: weights in
 * its repacked form where it has one for the encoding.
 */
public final class Ggml implements PeerEngine {
  private static final String PROPERTY = "gatun.ggml";
  private static final int FIRST_BLOCK = 128;
  private static final int F32 = 0;
  private static final int BF16 = 30;

  /** Loaded once: its threads and static tables stay. */
  private @Nullable CLibrary library;

  /** Made by the service loader. */
  public Ggml() {}

  @Override
  public String name() {
    return "ggml";
  }

  @Override
  public @Nullable Contender open(RandomLayer layer, int threads, int copies, int mostRows) {
    int type =
        switch (layer.work()) {
          case F32 -> F32;
          case BF16 -> BF16;
          // The ids of block encodings are ggml's, moved.
          default -> layer.work().encoding().id() - FIRST_BLOCK;
        };
    return type < 0 ? null : new GgmlProduct(library(), layer, type, threads, copies, mostRows);
  }

  /** It reports every weight that it lays out. */
  private static MemorySegment silence() {
    FunctionDescriptor type = FunctionDescriptor.ofVoid(JAVA_INT, ADDRESS, ADDRESS);
    MethodHandle nothing = MethodHandles.empty(type.toMethodType());
    return Linker.nativeLinker().upcallStub(nothing, type, Arena.global());
  }

  private synchronized CLibrary library() {
    if (library == null) {
      if (System.getProperty(PROPERTY) == null) {
        throw new GatunException(
            "found no property " + PROPERTY + ", expected the path of libggml-cpu.so");
      }
      library = new CLibrary(PeerLibrary.open(PROPERTY, Map.of(), Arena.global()));
      library.run("ggml_log_set", silence(), MemorySegment.NULL);
      library.run("ggml_cpu_init");
    }
    return library;
  }
}
