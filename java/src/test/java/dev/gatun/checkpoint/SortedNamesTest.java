package dev.gatun.checkpoint;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import org.junit.jupiter.api.Test;

class SortedNamesTest {
  private static final SortedNames NAMES =
      new SortedNames(
          List.of("a.weight", "a.b.weight", "ab.weight", "c.a.weight", "a", "z.\uffff"));

  @Test
  void findsNamesByHowTheyBegin() {
    assertThat(NAMES.startingWith("a.")).containsExactly("a.b.weight", "a.weight");
    assertThat(NAMES.startingWith("z.")).containsExactly("z.\uffff");
    assertThat(NAMES.startingWith("b")).isEmpty();
  }

  @Test
  void findsTheOneNameThatEndsSo() {
    assertThat(NAMES.onlyEndingWith(".a.weight")).contains("c.a.weight");
    assertThat(NAMES.onlyEndingWith(".weight")).as("four do").isEmpty();
    assertThat(NAMES.onlyEndingWith("b")).isEmpty();
  }
}
