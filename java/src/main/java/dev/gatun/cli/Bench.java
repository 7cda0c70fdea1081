package dev.gatun.cli;

import picocli.CommandLine;
import picocli.CommandLine.Mixin;

/** {@code gatun bench}: what its subcommands measure. */
@CommandLine.Command(
    name = "bench",
    description = "Measure the kernels on this machine.",
    synopsisSubcommandLabel = "COMMAND",
    subcommands = BenchLinear.class)
public final class Bench implements Command {
  @Mixin private CommonOptions common = new CommonOptions();

  /** For {@link java.util.ServiceLoader}. */
  public Bench() {}

  /** Without a subcommand: a usage error. */
  @Override
  public Integer call() {
    throw common.usage("missing command: what is to be measured");
  }
}
