package dev.gatun.cli;

import java.io.IOException;
import java.io.OutputStream;
import java.util.Locale;
import java.util.Objects;

/**
 * A stream to a reader that may have seen enough and leave, as {@code head} does: from then on,
 * what is written is dropped. Any other failure stays one.
 */
final class WhileRead extends OutputStream {
  private final OutputStream out;
  private boolean left;

  WhileRead(OutputStream out) {
    this.out = out;
  }

  @Override
  public void write(int b) throws IOException {
    write(new byte[] {(byte) b}, 0, 1);
  }

  @Override
  public void write(byte[] bytes, int offset, int length) throws IOException {
    attempt(() -> out.write(bytes, offset, length));
  }

  @Override
  public void flush() throws IOException {
    attempt(out::flush);
  }

  @Override
  public void close() throws IOException {
    attempt(out::close);
  }

  private interface Step {
    void run() throws IOException;
  }

  private void attempt(Step step) throws IOException {
    if (left) {
      return;
    }
    try {
      step.run();
    } catch (IOException e) {
      if (!isClosedPipe(e)) {
        throw e;
      }
      left = true;
    }
  }

  /** The system's words are all that Java hands on: "Broken pipe", "The pipe is being closed". */
  private static boolean isClosedPipe(IOException e) {
    return Objects.requireNonNullElse(e.getMessage(), "").toLowerCase(Locale.ROOT).contains("pipe");
  }
}
