package dev.gatun.cli;

import java.util.Optional;
import java.util.concurrent.Callable;

/**
 * A command that another module adds to {@code gatun}, found through {@link
 * java.util.ServiceLoader}.
 *
 * <p>The class carries picocli's annotation, which gives the name, and takes the options that all
 * commands share by a mixin:
 *
 * <pre>{@code
 * @CommandLine.Command(name = "demo", description = "…")
 * public final class Demo implements dev.gatun.cli.Command {
 *   @CommandLine.Mixin private CommonOptions common = new CommonOptions();
 *
 *   @Override
 *   public Integer call() {
 *     common.out().println("…");
 *     return 0;
 *   }
 * }
 * }</pre>
 *
 * <p>{@code call} returns the exit code: 0, or 1 for a failure that it has reported itself. Any
 * exception becomes one line on standard error and exit code 1; its stack trace is shown with
 * {@code --verbose} only. A picocli {@code ParameterException} is a usage error, exit code 2. The
 * package of the class has to be open to picocli.
 */
public interface Command extends Callable<Integer> {
  /**
   * The name of the command under which this one stands, as in {@code gatun bench peers}; empty for
   * one that stands directly under {@code gatun}. When nobody provides the parent, this command is
   * left out with a warning.
   */
  default Optional<String> parent() {
    return Optional.empty();
  }
}
