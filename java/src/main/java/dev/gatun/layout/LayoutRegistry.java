package dev.gatun.layout;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.GatunException;
import dev.gatun.QuantizedTensor;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.CudaReport;
import dev.gatun.kernel.Matrix;
import dev.gatun.kernel.Operation;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.ServiceLoader;

/**
 * Which entry point runs which operation on which layout. Layout-specific operations are registered
 * per (operation, layout, backend); those that any layout shares are in {@link GenericOperations}.
 * Immutable once built.
 */
public final class LayoutRegistry {
  /** Stands for every layout in {@link Registrar#entryPoint}. */
  public static final String ANY = "*";

  /** How a provider adds to the registry. */
  public interface Registrar {
    /**
     * A layout that files of a checkpoint format have.
     *
     * @param checkpointFormat {@code comfyui}, {@code bitsandbytes} …
     */
    void layout(String checkpointFormat, Layout layout);

    /**
     * An entry point for a layout's operation. Of two for the same operation, layout and backend,
     * the one that was registered for the layout itself is asked before one for {@link #ANY}, and
     * the later before the earlier.
     *
     * @param layout a layout's name, or {@link #ANY}
     */
    void entryPoint(String layout, EntryPoint entryPoint);
  }

  /** One row of the map: checkpoint format → layout → operation → backend → entry point. */
  public record Entry(
      String checkpointFormat,
      String layout,
      String description,
      Operation operation,
      String backend,
      String entryPoint) {}

  /** The entry point that was chosen and the backend that runs it. */
  public record Choice(EntryPoint entryPoint, Backend backend) {}

  private record Known(String format, Layout layout) {}

  private record Registered(String layout, EntryPoint entryPoint) {}

  private static final class Loaded {
    static final LayoutRegistry REGISTRY =
        of(
            ServiceLoader.load(LayoutProvider.class, LayoutRegistry.class.getClassLoader()).stream()
                .map(ServiceLoader.Provider::get)
                .toList());
  }

  private final Map<String, Known> layouts = new LinkedHashMap<>();
  private final List<Registered> registered = new ArrayList<>();

  private LayoutRegistry() {}

  /** The registry of every provider on the class or module path. */
  public static LayoutRegistry get() {
    return Loaded.REGISTRY;
  }

  /** A registry of these providers only. */
  public static LayoutRegistry of(List<LayoutProvider> providers) {
    LayoutRegistry registry = new LayoutRegistry();
    Registrar registrar =
        new Registrar() {
          @Override
          public void layout(String checkpointFormat, Layout layout) {
            registry.layouts.putIfAbsent(layout.name(), new Known(checkpointFormat, layout));
          }

          @Override
          public void entryPoint(String layout, EntryPoint entryPoint) {
            registry.registered.add(
                0,
                new Registered(Objects.requireNonNull(layout), Objects.requireNonNull(entryPoint)));
          }
        };
    providers.forEach(provider -> provider.register(registrar));
    return registry;
  }

  /** The whole map. */
  public List<Entry> entries() {
    List<Entry> entries = new ArrayList<>();
    for (Known known : layouts.values()) {
      for (Operation operation : Operation.values()) {
        for (EntryPoint e : candidates(operation, known.layout.name())) {
          entries.add(
              new Entry(
                  known.format,
                  known.layout.name(),
                  known.layout.describe(),
                  operation,
                  e.backend(),
                  e.name()));
        }
      }
    }
    return entries;
  }

  /** Entry points for the operation: those of the layout itself before those of any. */
  private List<EntryPoint> candidates(Operation operation, String layout) {
    List<EntryPoint> found = new ArrayList<>();
    for (String name : List.of(layout, ANY)) {
      for (Registered r : registered) {
        if (r.layout.equals(name) && r.entryPoint.operation() == operation) {
          found.add(r.entryPoint);
        }
      }
    }
    return found;
  }

  /** Candidates in the order in which the device asks them: its preferred backends first. */
  private List<EntryPoint> candidates(Operation operation, String layout, Device device) {
    List<EntryPoint> all = candidates(operation, layout);
    List<EntryPoint> sorted = new ArrayList<>();
    for (String backend : device.order()) {
      all.stream().filter(e -> e.backend().equals(backend)).forEach(sorted::add);
    }
    all.stream().filter(e -> !sorted.contains(e)).forEach(sorted::add);
    return sorted;
  }

  private static Optional<String> refuses(
      EntryPoint e, Device device, Matrix matrix, long m, Optional<Compute> compute) {
    Optional<String> why = device.refuses(e.backend());
    return why.isPresent() ? why : e.refuses(device.backend(e.backend()), matrix, m, compute);
  }

  /** The entry point that runs; empty when every candidate refuses. */
  public Optional<Choice> choose(
      Operation operation,
      Layout layout,
      Matrix matrix,
      long m,
      Optional<Compute> compute,
      Device device) {
    for (EntryPoint e : candidates(operation, layout.name(), device)) {
      if (refuses(e, device, matrix, m, compute).isEmpty()) {
        return Optional.of(new Choice(e, e.bind(device.backend(e.backend()))));
      }
    }
    return Optional.empty();
  }

  /** What {@code linear} with compute type F32 runs for {@code m} rows of x. */
  public Explanation explain(QuantizedTensor tensor, long m, Device device) {
    return explain(tensor, m, device, Compute.F32);
  }

  /** What {@code linear} runs for {@code m} rows of x. */
  public Explanation explain(QuantizedTensor tensor, long m, Device device, Compute compute) {
    return explain(Operation.LINEAR, tensor, m, Optional.of(compute), device);
  }

  /**
   * What an operation runs.
   *
   * @param compute for {@code linear} only
   */
  public Explanation explain(
      Operation operation,
      QuantizedTensor tensor,
      long m,
      Optional<Compute> compute,
      Device device) {
    if (m < 0) {
      throw new GatunException("explain: found " + m + " rows, expected at least 0");
    }
    List<Explanation.Candidate> candidates = new ArrayList<>();
    String winner = "";
    for (EntryPoint e : candidates(operation, tensor.layout().name(), device)) {
      Optional<String> why = refuses(e, device, tensor.matrix(), m, compute);
      Optional<String> kernel = Optional.empty();
      Optional<String> how = Optional.empty();
      if (device.refuses(e.backend()).isPresent()) {
        how = e.backend().equals("cuda") ? wouldRun(operation, tensor, m, compute) : how;
      } else if (why.isEmpty() && winner.isEmpty()) {
        how = e.how(device.backend(e.backend()), tensor.matrix(), m, compute);
      }
      if (why.isEmpty() && winner.isEmpty()) {
        winner = e.name();
        kernel = Optional.of(e.kernel(device.backend(e.backend()), tensor.matrix(), m, compute));
      } else if (why.isEmpty()) {
        why = Optional.of("ranks after " + winner);
      }
      candidates.add(new Explanation.Candidate(e.backend(), e.name(), kernel, why, how));
    }
    return new Explanation(
        operation,
        tensor.layout().name(),
        m,
        compute,
        device.toString(),
        candidates,
        winner.isEmpty());
  }

  /** What a GPU would do, where there is none. */
  private static Optional<String> wouldRun(
      Operation operation, QuantizedTensor tensor, long m, Optional<Compute> compute) {
    return operation == Operation.LINEAR && CudaReport.get().gpus().isEmpty()
        ? compute
            .flatMap(c -> CudaReport.wouldRun(tensor.matrix(), m, c))
            .map(way -> "on a GPU: " + way)
        : Optional.empty();
  }
}
