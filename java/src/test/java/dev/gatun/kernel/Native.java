package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.gatun.bindings.NativeLibrary;

/** Whether tests of the native library run. */
final class Native {
  private Native() {}

  /** Skips the test where the library was not built; fails it where it was and is not found. */
  static void require() {
    assumeTrue(
        "on".equals(System.getProperty("gatun.test.native")), "the native library is switched off");
    NativeLibrary.Result found = NativeLibrary.load();
    assertThat(found).as(found.describe()).isInstanceOf(NativeLibrary.Loaded.class);
  }
}
