package dev.gatun.cli;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.SerializationFeature;
import java.io.PrintWriter;
import picocli.CommandLine;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Spec;

/**
 * What every command takes, and where it writes: results to {@link #out()}, logs and progress to
 * {@link #err()}.
 */
public final class CommonOptions {
  private static final ObjectMapper JSON =
      new ObjectMapper().enable(SerializationFeature.INDENT_OUTPUT);

  @Option(names = "--json", description = "Print one JSON document instead of text.")
  private boolean json;

  @Option(
      names = {"-v", "--verbose"},
      description = "Show what happens inside (log lines) and stack traces of errors.")
  private boolean verbose;

  @Option(
      names = {"-h", "--help"},
      usageHelp = true,
      description = "Show this help and exit.")
  private boolean help;

  @Option(
      names = {"-V", "--version"},
      versionHelp = true,
      description = "Print the version and exit.")
  private boolean version;

  @Spec(Spec.Target.MIXEE)
  private CommandSpec command = CommandSpec.create();

  /** Made by picocli or by a command's field. */
  public CommonOptions() {}

  /** Whether the result is to be one JSON document. */
  public boolean json() {
    return json;
  }

  /** Whether log lines and stack traces are wanted. */
  public boolean verbose() {
    return verbose;
  }

  /** The command that is running. */
  CommandSpec command() {
    return command;
  }

  /** Where results go. */
  public PrintWriter out() {
    return command.commandLine().getOut();
  }

  /** Where logs and progress go. */
  public PrintWriter err() {
    return command.commandLine().getErr();
  }

  /** A usage error of the command that is running: exit code 2. */
  public CommandLine.ParameterException usage(String message) {
    return new CommandLine.ParameterException(command.commandLine(), message);
  }

  /**
   * Prints a value (maps, lists, records, numbers, strings) as one JSON document on {@link #out()}.
   */
  public void printJson(Object value) {
    try {
      out().println(JSON.writeValueAsString(value));
    } catch (JsonProcessingException e) {
      throw new IllegalStateException("this result has no JSON form: " + e.getOriginalMessage(), e);
    }
    out().flush();
  }
}
