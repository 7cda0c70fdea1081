package dev.gatun.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;

/** Runs commands in this process. */
final class Cli {
  private Cli() {}

  /** What a command gave. */
  record Result(int code, String out, String err) {
    /** Its only document. */
    JsonNode json() {
      assertThat(code).as(err).isZero();
      try {
        return new ObjectMapper().readTree(out);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }

    Result succeeds() {
      assertThat(code).as(err).isZero();
      return this;
    }

    /** Exit code 1, nothing on standard output, one line on standard error with all of these. */
    Result fails(Object... parts) {
      assertThat(code).as(out + err).isEqualTo(1);
      assertThat(out).isEmpty();
      assertThat(err.lines()).as(err).hasSize(1);
      assertThat(err).startsWith("gatun: ");
      for (Object part : parts) {
        assertThat(err).contains(part.toString());
      }
      return this;
    }

    /**
     * Exit code 2, nothing on standard output, what is wrong on the first line of standard error.
     */
    Result isMisused(String... parts) {
      assertThat(code).as(out + err).isEqualTo(2);
      assertThat(out).isEmpty();
      assertThat(err.lines().findFirst().orElseThrow()).startsWith("gatun: ").contains(parts);
      assertThat(err).contains("--help");
      return this;
    }
  }

  static Result run(Object... args) {
    StringWriter out = new StringWriter();
    StringWriter err = new StringWriter();
    String[] words = Arrays.stream(args).map(Object::toString).toArray(String[]::new);
    int code = Gatun.run(new PrintWriter(out), new PrintWriter(err), words);
    return new Result(code, out.toString(), err.toString());
  }

  /** Names of everything in a directory, hidden files too. */
  static List<String> names(Path directory) {
    try (Stream<Path> files = Files.list(directory)) {
      return files.map(file -> file.getFileName().toString()).sorted().toList();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
