package dev.gatun;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Parts of the README that tests write or run, so that they cannot grow stale. */
public final class ReadmeSection {
  private static final Path README = Path.of("..", "README.md");

  private ReadmeSection() {}

  /**
   * Compares what stands between two comments with what a test generates; {@code
   * -Dgatun.readme=write} writes it instead.
   *
   * @param name the section's name: {@code <!-- name: written by author -->} opens it, {@code <!--
   *     /name -->} ends it
   */
  public static synchronized void keep(String name, Class<?> author, String content)
      throws IOException {
    String open = "<!-- " + name + ": written by " + author.getSimpleName() + " -->";
    String readme = Files.readString(README);
    int begin = readme.indexOf(open);
    int end = readme.indexOf("<!-- /" + name + " -->");
    assertThat(begin).as("%s in the README", open).isNotNegative().isLessThan(end);
    String head = readme.substring(0, begin + open.length());
    String expected = head + "\n\n" + content + "\n" + readme.substring(end);
    if ("write".equals(System.getProperty("gatun.readme"))) {
      Files.writeString(README, expected);
    }
    assertThat(Files.readString(README))
        .as("run this test with -Dgatun.readme=write")
        .isEqualTo(expected);
  }

  /** The README's first block of code in a language. */
  static String code(String language) throws IOException {
    String fence = "```" + language + "\n";
    String readme = Files.readString(README);
    int begin = readme.indexOf(fence);
    assertThat(begin).as("a block of %s in the README", language).isNotNegative();
    int end = readme.indexOf("```", begin + fence.length());
    return readme.substring(begin + fence.length(), end);
  }
}
