package dev.gatun.cli;

import java.util.logging.ConsoleHandler;
import java.util.logging.Formatter;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;

/**
 * Log lines of the library on standard error, one line each. Only the command line configures
 * logging.
 */
final class Logs {
  /** Held here: the logging framework keeps loggers weakly and would forget the level. */
  private static final Logger GATUN = Logger.getLogger("dev.gatun");

  private Logs() {}

  /**
   * Sends {@code dev.gatun}'s log lines to standard error: warnings, and with {@code verbose}
   * everything from INFO up.
   */
  static void toStandardError(boolean verbose) {
    for (Handler handler : GATUN.getHandlers()) {
      GATUN.removeHandler(handler);
    }
    var handler = new ConsoleHandler();
    handler.setLevel(Level.ALL);
    handler.setFormatter(new OneLine(verbose));
    GATUN.addHandler(handler);
    GATUN.setUseParentHandlers(false);
    GATUN.setLevel(verbose ? Level.INFO : Level.WARNING);
  }

  private static final class OneLine extends Formatter {
    private final boolean verbose;

    OneLine(boolean verbose) {
      this.verbose = verbose;
    }

    @Override
    public String format(LogRecord line) {
      String level = line.getLevel().intValue() >= Level.WARNING.intValue() ? "warning: " : "";
      String text = "gatun: " + level + formatMessage(line) + System.lineSeparator();
      return verbose && line.getThrown() != null
          ? text + Failures.stackTrace(line.getThrown())
          : text;
    }
  }
}
