package dev.gatun;

import dev.gatun.kernel.Backend;
import dev.gatun.kernel.BackendProvider;
import dev.gatun.kernel.CudaProvider;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;

/**
 * What operations run on: one backend with a number of threads, and what it falls back to.
 * Thread-safe. Layers that were packed for a device are closed before it. One on a GPU is a {@link
 * CudaDevice}.
 */
public sealed class Device implements AutoCloseable permits CudaDevice {
  private static final System.Logger LOG = System.getLogger("dev.gatun");
  private static final Set<String> SAID = ConcurrentHashMap.newKeySet();

  /**
   * What is known of one backend: whether it can run here, and what was found or is missing, in one
   * line.
   */
  public record Probe(String backend, boolean available, String detail) {}

  private final BackendProvider provider;
  private final int threads;
  private final boolean strict;
  private final Set<String> allowed;
  private final Map<String, Backend> backends = new LinkedHashMap<>();
  private boolean closed;

  Device(BackendProvider provider, int threads, boolean strict, Set<String> allowed) {
    if (threads < 1 || threads > 1024) {
      throw new GatunException("device: found " + threads + " threads, expected 1 to 1024");
    }
    this.provider = provider;
    this.threads = threads;
    this.strict = strict;
    this.allowed = allowed;
    backends.put(provider.name(), provider.create(threads));
  }

  private static Device open(
      BackendProvider provider, int threads, boolean strict, Set<String> allowed) {
    return provider instanceof CudaProvider
        ? new CudaDevice(provider, threads, strict, allowed)
        : new Device(provider, threads, strict, allowed);
  }

  /**
   * A GPU, by CUDA's index from 0. What it has no kernel for falls back to lesser backends, and
   * says so.
   *
   * @throws GatunException when there is no such GPU, no driver or no libgatun_cuda, with the
   *     reason
   */
  public static CudaDevice cuda(int index) {
    CudaProvider provider = new CudaProvider(index);
    requireAvailable(provider);
    int threads = Runtime.getRuntime().availableProcessors();
    return new CudaDevice(provider, threads, false, Set.of());
  }

  /**
   * The best backend there is: cuda, native, vector or reference; as many threads as the JVM sees
   * cores.
   */
  public static Device best() {
    return best(Runtime.getRuntime().availableProcessors());
  }

  /** The best backend there is, with this many threads (1..1024). */
  public static Device best(int threads) {
    return best(providers(), threads);
  }

  static Device best(List<BackendProvider> providers, int threads) {
    List<String> missing = new ArrayList<>();
    for (BackendProvider provider : providers) {
      BackendProvider.Availability availability = provider.probe();
      if (availability.available()) {
        missing.forEach(line -> sayOnce(line + "; " + provider.name() + " runs instead"));
        return open(provider, threads, false, Set.of());
      }
      String line = provider.name() + " is not available: " + availability.detail();
      if (provider.isExtra()) {
        LOG.log(System.Logger.Level.DEBUG, line);
      } else {
        missing.add(line);
      }
    }
    throw new GatunException("no backend is available: " + String.join("; ", missing));
  }

  /**
   * One backend, with as many threads as the JVM sees cores.
   *
   * @param backend {@code reference}, {@code vector}, {@code native} or {@code cuda}
   * @throws GatunException when it is unknown or not available, with the reason
   */
  public static Device of(String backend) {
    return of(backend, Runtime.getRuntime().availableProcessors());
  }

  /**
   * One backend, with this many threads (1..1024). What it has no kernel for falls back to lesser
   * ones, and says so.
   */
  public static Device of(String backend, int threads) {
    return open(available(backend), threads, false, Set.of());
  }

  /**
   * The first of these backends that is available. What none of them has a kernel for is refused;
   * nothing falls back.
   *
   * @throws GatunException when none is available, with the reason for each
   */
  public static Device require(String... backends) {
    if (backends.length == 0) {
      throw new GatunException("device: found no backends, expected at least one");
    }
    List<String> reasons = new ArrayList<>();
    for (String backend : backends) {
      try {
        int threads = Runtime.getRuntime().availableProcessors();
        return open(available(backend), threads, true, Set.of(backends));
      } catch (GatunException e) {
        reasons.add(String.valueOf(e.getMessage()));
      }
    }
    throw new GatunException(String.join("; ", reasons));
  }

  private static BackendProvider available(String name) {
    Objects.requireNonNull(name, "backend");
    List<BackendProvider> providers = providers();
    for (BackendProvider provider : providers) {
      if (provider.name().equals(name)) {
        requireAvailable(provider);
        return provider;
      }
    }
    throw new GatunException(
        "no backend '"
            + name
            + "', expected one of "
            + providers.stream().map(BackendProvider::name).toList());
  }

  private static void requireAvailable(BackendProvider provider) {
    BackendProvider.Availability availability = provider.probe();
    if (!availability.available()) {
      throw new GatunException(
          "backend " + provider.name() + " is not available: " + availability.detail());
    }
  }

  /** Every backend that was found, the preferred first, available or not. */
  public static List<Probe> probe() {
    return providers().stream()
        .map(
            provider -> {
              BackendProvider.Availability found = provider.probe();
              return new Probe(provider.name(), found.available(), found.detail());
            })
        .toList();
  }

  private static List<BackendProvider> providers() {
    List<BackendProvider> providers = new ArrayList<>();
    Iterator<ServiceLoader.Provider<BackendProvider>> found =
        ServiceLoader.load(BackendProvider.class, Device.class.getClassLoader()).stream()
            .iterator();
    while (found.hasNext()) {
      try {
        providers.add(found.next().get());
      } catch (ServiceConfigurationError e) {
        sayOnce("a backend could not be loaded: " + e.getMessage());
      }
    }
    providers.sort(Comparator.comparingInt(BackendProvider::rank).reversed());
    return providers;
  }

  /** The backend's name. */
  public String name() {
    return provider.name();
  }

  /** How many threads an operation may use, the caller's included. */
  public int threads() {
    return threads;
  }

  /** Who runs the operations. */
  public Backend backend() {
    return backend(provider.name());
  }

  /**
   * The device's backend together with those that it falls back to: each operation runs on the
   * first that takes it, and what the others lack is said once at level INFO.
   */
  public Backend operations() {
    return new DeviceBackend(this);
  }

  /** Whether what is not run by the required backends is refused. */
  public boolean isStrict() {
    return strict;
  }

  /** Every backend that was found, the preferred first. */
  public List<String> order() {
    return providers().stream().map(BackendProvider::name).toList();
  }

  /** Why this device does not run operations on a backend, in one clause; empty when it does. */
  public Optional<String> refuses(String backend) {
    if (backend.equals(name())) {
      return Optional.empty();
    }
    for (BackendProvider other : providers()) {
      if (other.name().equals(backend)) {
        BackendProvider.Availability found = other.probe();
        if (!found.available()) {
          return Optional.of("not available: " + found.detail());
        }
        if (strict && !allowed.contains(backend)) {
          return Optional.of("the device requires " + String.join(" or ", allowed));
        }
        return other.rank() > provider.rank()
            ? Optional.of("the device was opened for " + name())
            : Optional.empty();
      }
    }
    return Optional.of("no such backend");
  }

  /**
   * The device's backend or one that it falls back to.
   *
   * @throws GatunException when the device does not run operations there
   * @throws IllegalStateException when the device is closed
   */
  public Backend backend(String name) {
    synchronized (backends) {
      if (closed) {
        throw new IllegalStateException("device " + name() + " is closed");
      }
      Backend backend = backends.get(name);
      if (backend == null) {
        refuses(name)
            .ifPresent(
                why -> {
                  throw new GatunException("backend " + name + ": " + why);
                });
        backend = available(name).create(threads);
        backends.put(name, backend);
      }
      return backend;
    }
  }

  /** Logs a line at INFO, each line once in the life of the JVM. */
  static void sayOnce(String line) {
    if (SAID.add(line)) {
      LOG.log(System.Logger.Level.INFO, line);
    }
  }

  /** Ends the backends' threads. A second call does nothing. */
  @Override
  public void close() {
    synchronized (backends) {
      if (closed) {
        return;
      }
      closed = true;
      for (Backend backend : backends.values()) {
        if (backend instanceof AutoCloseable closeable) {
          try {
            closeable.close();
          } catch (Exception e) {
            throw new GatunException(
                "device " + name() + ": could not be closed: " + e.getMessage(), e);
          }
        }
      }
    }
  }

  @Override
  public String toString() {
    return name() + " (" + threads + " threads)";
  }
}
