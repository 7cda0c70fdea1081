package dev.gatun.cli;

import dev.gatun.Device;
import java.util.List;
import java.util.Optional;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** Where a command's operations run: {@code --backend} and {@code --threads}. */
public final class DeviceOptions {
  private static final int MOST_THREADS = 1024;

  @Option(
      names = "--backend",
      paramLabel = "B",
      description = "reference, vector, native or cuda; default: the best that is available.")
  private @Nullable String backend;

  @Option(
      names = "--threads",
      paramLabel = "N",
      description = "1 to 1024; default: the cores that the JVM sees.")
  private @Nullable Integer threads;

  @Spec(Spec.Target.MIXEE)
  private CommandSpec command = CommandSpec.create();

  /** Made by picocli or by a command's field. */
  public DeviceOptions() {}

  /** The backend that was asked for. */
  public Optional<String> backend() {
    return Optional.ofNullable(backend);
  }

  /**
   * Opens the device.
   *
   * @throws CommandLine.ParameterException when there is no such backend or the number of threads
   *     cannot be
   * @throws dev.gatun.GatunException when the backend is not available, with the reason
   */
  public Device open() {
    int count = threads == null ? Runtime.getRuntime().availableProcessors() : threads;
    if (count < 1 || count > MOST_THREADS) {
      throw usage("--threads: found " + count + ", expected 1 to " + MOST_THREADS);
    }
    if (backend == null) {
      return Device.best(count);
    }
    List<String> known = Device.probe().stream().map(Device.Probe::backend).toList();
    if (!known.contains(backend)) {
      throw usage(
          "--backend: found '" + backend + "', expected one of " + String.join(", ", known));
    }
    return Device.of(backend, count);
  }

  private CommandLine.ParameterException usage(String message) {
    return new CommandLine.ParameterException(command.commandLine(), message);
  }
}
