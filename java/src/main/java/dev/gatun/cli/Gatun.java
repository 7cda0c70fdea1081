package dev.gatun.cli;

import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.PrintStream;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.ServiceConfigurationError;
import java.util.ServiceLoader;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.ParseResult;
import picocli.CommandLine.Spec;

/** The main class of {@code gatun}. Exit codes: 0 done, 1 failed, 2 wrong usage. */
@CommandLine.Command(
    name = "gatun",
    description =
        "Quantized checkpoints for the JVM: look into them, convert them, multiply by them.",
    synopsisSubcommandLabel = "COMMAND")
public final class Gatun implements Runnable {
  private static final System.Logger LOG = System.getLogger(Gatun.class.getName());

  @Mixin private CommonOptions common = new CommonOptions();

  @Spec private CommandSpec spec = CommandSpec.create();

  /** Made by {@link #commandLine()}. */
  Gatun() {}

  /** Without a command: the help, as an error. */
  @Override
  public void run() {
    throw new CommandLine.ParameterException(spec.commandLine(), "missing command");
  }

  /** Runs one command and ends the process with its exit code. */
  public static void main(String[] args) {
    useGivenStandardError();
    var stdout = new WhileRead(new FileOutputStream(FileDescriptor.out));
    var out = new PrintWriter(stdout, false, StandardCharsets.UTF_8);
    var err = new PrintWriter(System.err, true, StandardCharsets.UTF_8);
    System.exit(run(out, err, args));
  }

  /**
   * The launcher filters what the JVM says on standard error, and gives us the real one as
   * descriptor 0, where standard input is as a rule.
   */
  private static void useGivenStandardError() {
    if ("0".equals(System.getProperty("gatun.stderr"))) {
      var given = new FileOutputStream(FileDescriptor.in);
      System.setErr(new PrintStream(given, true, StandardCharsets.UTF_8));
    }
  }

  /**
   * Runs one command in this process.
   *
   * @param out where results go
   * @param err where errors, logs and progress go
   * @return the exit code
   */
  public static int run(PrintWriter out, PrintWriter err, String... args) {
    CommandLine line = commandLine().setOut(out).setErr(err);
    int code = line.execute(args);
    boolean lost = out.checkError(); // flushes
    if (lost && code == CommandLine.ExitCode.OK) {
      err.println("gatun: standard output: cannot be written: it is full or closed");
      code = CommandLine.ExitCode.SOFTWARE;
    }
    err.flush();
    return code;
  }

  /** The whole command line: our commands and those that other modules provide. */
  public static CommandLine commandLine() {
    var line = new CommandLine(new Gatun());
    List<Command> nested = new ArrayList<>();
    var loader = ServiceLoader.load(Command.class, Gatun.class.getClassLoader()).iterator();
    while (true) {
      try {
        if (!loader.hasNext()) {
          break;
        }
        Command command = loader.next();
        if (command.parent().isPresent()) {
          nested.add(command);
        } else {
          line.addSubcommand(command);
        }
      } catch (ServiceConfigurationError e) {
        LOG.log(System.Logger.Level.WARNING, "a command could not be loaded: " + e.getMessage(), e);
      }
    }
    nested.forEach(command -> addUnderParent(line, command));
    line.setCaseInsensitiveEnumValuesAllowed(true);
    line.setExecutionStrategy(Gatun::execute);
    line.setParameterExceptionHandler(Failures::usage);
    giveVersion(line);
    return line;
  }

  private static void addUnderParent(CommandLine line, Command command) {
    String name = command.parent().orElseThrow();
    CommandLine parent = line.getSubcommands().get(name);
    if (parent == null) {
      LOG.log(
          System.Logger.Level.WARNING,
          command.getClass().getName() + " could not be added: there is no command '" + name + "'");
    } else {
      parent.addSubcommand(command);
    }
  }

  private static void giveVersion(CommandLine line) {
    line.getCommandSpec().versionProvider(new Version());
    line.getSubcommands().values().forEach(Gatun::giveVersion);
  }

  private static int execute(ParseResult parsed) {
    boolean verbose = verbose(parsed);
    Logs.toStandardError(verbose);
    CommandLine line = deepest(parsed).commandSpec().commandLine();
    try {
      return new CommandLine.RunLast().execute(parsed);
    } catch (CommandLine.ParameterException e) {
      throw e;
    } catch (Throwable e) {
      // Errors too: a full heap or a mapped file that was cut short must end in one line like
      // everything else.
      return Failures.report(e, line.getErr(), verbose);
    }
  }

  private static ParseResult deepest(ParseResult parsed) {
    ParseResult at = parsed;
    while (at.subcommand() != null) {
      at = at.subcommand();
    }
    return at;
  }

  private static boolean verbose(ParseResult parsed) {
    for (@Nullable ParseResult at = parsed; at != null; at = at.subcommand()) {
      if (at.hasMatchedOption("--verbose")) {
        return true;
      }
    }
    return false;
  }
}
