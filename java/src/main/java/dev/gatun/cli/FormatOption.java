package dev.gatun.cli;

import dev.gatun.quantize.Quantizer;
import java.util.Map;
import java.util.stream.Collectors;
import picocli.CommandLine;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/** {@code --format}: one of the formats that can be written. */
public final class FormatOption {
  @Option(
      names = "--format",
      required = true,
      paramLabel = "F",
      completionCandidates = Names.class,
      description = "One of ${COMPLETION-CANDIDATES}.")
  private String format = "";

  @Spec(Spec.Target.MIXEE)
  private CommandSpec command = CommandSpec.create();

  /** Made by picocli or by a command's field. */
  public FormatOption() {}

  /** The names of all formats that can be written, for the help. */
  static final class Names implements Iterable<String> {
    @Override
    public java.util.Iterator<String> iterator() {
      return Quantizer.formats().keySet().iterator();
    }
  }

  /**
   * The format's name.
   *
   * @throws CommandLine.ParameterException when nothing writes it
   */
  String name() {
    return checked(format, command);
  }

  /** The name, checked, for a command whose option is not required. */
  static String checked(String format, CommonOptions common) {
    return checked(format, common.command());
  }

  private static String checked(String format, CommandSpec command) {
    Map<String, String> formats = Quantizer.formats();
    if (!formats.containsKey(format)) {
      String known = formats.keySet().stream().collect(Collectors.joining(", "));
      throw new CommandLine.ParameterException(
          command.commandLine(), "--format: found '" + format + "', expected one of " + known);
    }
    return format;
  }
}
