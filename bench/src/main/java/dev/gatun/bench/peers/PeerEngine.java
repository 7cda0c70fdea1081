package dev.gatun.bench.peers;

import java.util.Comparator;
import java.util.List;
import java.util.ServiceLoader;
import org.jspecify.annotations.Nullable;

/**
 * Another engine, found through {@link ServiceLoader}: those that need large libraries are on the
 * class path only with a Maven profile.
 */
interface PeerEngine {
  /** The engine's name in tables. */
  String name();

  /**
   * The engine's form of a layer.
   *
   * @return null when it has no operator for the layer's work
   * @throws dev.gatun.GatunException when the engine cannot run here
   */
  @Nullable Contender open(RandomLayer layer, int threads, int copies, int mostRows);

  /** Every engine on the class path. */
  static List<PeerEngine> all() {
    return ServiceLoader.load(PeerEngine.class, PeerEngine.class.getClassLoader()).stream()
        .map(ServiceLoader.Provider::get)
        .sorted(Comparator.comparing(PeerEngine::name))
        .toList();
  }
}
