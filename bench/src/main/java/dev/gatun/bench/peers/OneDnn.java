package dev.gatun.bench.peers;

import dev.gatun.bindings.NativeLibrary;
import java.lang.foreign.Arena;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * oneDNN's matrix products: dense floats, bfloat16 and int8, and weights of 4 bits that it widens
 * as it multiplies. x is handed to it as bfloat16 or int8, and what that costs is not timed.
 */
public final class OneDnn implements PeerEngine {
  /** Loaded once: its threads stay. */
  private @Nullable CLibrary library;

  /** Made by the service loader. */
  public OneDnn() {}

  @Override
  public String name() {
    return "onednn";
  }

  @Override
  public @Nullable Contender open(RandomLayer layer, int threads, int copies, int mostRows) {
    OneDnnTypes types = OneDnnTypes.of(layer.work());
    return types == null ? null : new OneDnnProduct(library(), layer, types, threads, copies);
  }

  private synchronized CLibrary library() {
    if (library == null) {
      Map<String, String> files = PeerLibrary.bytedeco("dnnl", "libdnnl.so.3", "libgomp.so.1");
      // Its GPU half wants a loader of OpenCL; this one has no platform.
      files.put(
          "META-INF/native/"
              + NativeLibrary.platform()
              + "/"
              + System.mapLibraryName("gatun_no_opencl"),
          "libOpenCL.so.1");
      library = new CLibrary(PeerLibrary.open("gatun.onednn", files, Arena.global()));
    }
    return library;
  }
}
