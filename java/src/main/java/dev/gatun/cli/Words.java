package dev.gatun.cli;

import java.util.Locale;

/** Names as they are typed on the command line. */
final class Words {
  private Words() {}

  /** {@code Compute.BF16} is {@code bf16}. */
  static String of(Enum<?> value) {
    return value.name().toLowerCase(Locale.ROOT);
  }
}
