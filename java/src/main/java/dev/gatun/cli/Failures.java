package dev.gatun.cli;

import dev.gatun.GatunException;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.DirectoryNotEmptyException;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.FileSystemException;
import java.nio.file.NoSuchFileException;
import java.nio.file.NotDirectoryException;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import picocli.CommandLine;
import picocli.CommandLine.ParameterException;
import picocli.CommandLine.UnmatchedArgumentException;

/** Turns whatever went wrong into one line on standard error and an exit code. */
final class Failures {
  private Failures() {}

  /** Wrong usage: what is wrong, how it goes; exit code 2. */
  static int usage(ParameterException e, String[] args) {
    CommandLine line = e.getCommandLine();
    PrintWriter err = line.getErr();
    err.println("gatun: " + oneLine(Objects.requireNonNullElse(e.getMessage(), "wrong usage")));
    UnmatchedArgumentException.printSuggestions(e, err);
    err.println("try: " + line.getCommandSpec().qualifiedName() + " --help");
    err.flush();
    return CommandLine.ExitCode.USAGE;
  }

  /** A failure: one line, with the stack trace when {@code verbose}; exit code 1. */
  static int report(Throwable failure, PrintWriter err, boolean verbose) {
    Throwable cause = unwrap(failure);
    err.println("gatun: " + oneLine(describe(cause)));
    if (verbose) {
      err.print(stackTrace(cause));
    }
    err.flush();
    return CommandLine.ExitCode.SOFTWARE;
  }

  static String stackTrace(Throwable failure) {
    var text = new StringWriter();
    failure.printStackTrace(new PrintWriter(text));
    return text.toString();
  }

  private static Throwable unwrap(Throwable failure) {
    Throwable at = failure;
    while (at.getCause() != null
        && (at instanceof CommandLine.ExecutionException
            || at instanceof UncheckedIOException
            || at instanceof ExecutionException
            || at instanceof ExceptionInInitializerError)) {
      at = at.getCause();
    }
    return at;
  }

  private static String describe(Throwable e) {
    String message = Objects.requireNonNullElse(e.getMessage(), "");
    return switch (e) {
      case GatunException g -> message;
      case NoSuchFileException f -> f.getFile() + ": no such file or directory";
      case AccessDeniedException f -> f.getFile() + ": permission denied";
      case FileAlreadyExistsException f -> f.getFile() + ": exists already";
      case NotDirectoryException f -> f.getFile() + ": not a directory";
      case DirectoryNotEmptyException f -> f.getFile() + ": directory is not empty";
      case FileSystemException f ->
          f.getFile() + ": " + Objects.requireNonNullElse(f.getReason(), "failed");
      case IOException io -> "input or output failed: " + orName(message, e);
      case OutOfMemoryError oom ->
          "out of memory ("
              + orName(message, e)
              + "): the JVM may use "
              + Runtime.getRuntime().maxMemory() / (1 << 20)
              + " MiB of heap; raise it with -Xmx";
      case InternalError internal ->
          "a mapped file could not be read: it was cut short or its disk failed ("
              + orName(message, e)
              + ")";
      case StackOverflowError overflow -> "nested too deeply: the stack is full";
      default -> e.getClass().getSimpleName() + ": " + orName(message, e);
    };
  }

  private static String orName(String message, Throwable e) {
    return message.isBlank() ? e.getClass().getSimpleName() : message;
  }

  private static String oneLine(String text) {
    return text.strip().replaceAll("\\s*\\R\\s*", " ");
  }
}
