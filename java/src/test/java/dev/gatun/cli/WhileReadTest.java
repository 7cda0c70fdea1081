package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.OutputStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

/** What becomes of a command whose standard output takes no more. */
class WhileReadTest {
  private final StringWriter err = new StringWriter();

  private int run(String failure) {
    OutputStream out =
        new OutputStream() {
          @Override
          public void write(int b) throws IOException {
            throw new IOException(failure);
          }
        };
    return Gatun.run(
        new PrintWriter(new WhileRead(out), false, StandardCharsets.UTF_8),
        new PrintWriter(err),
        "layouts");
  }

  @Test
  void aReaderMayLeave() {
    assertThat(run("Broken pipe")).isZero();
    assertThat(err.toString()).isEmpty();
  }

  @Test
  void aFullDiskIsAFailure() {
    assertThat(run("No space left on device")).isEqualTo(1);
    assertThat(err.toString().lines())
        .containsExactly("gatun: standard output: cannot be written: it is full or closed");
  }
}
