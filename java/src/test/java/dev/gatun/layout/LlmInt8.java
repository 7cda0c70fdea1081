package dev.gatun.layout;

import dev.gatun.kernel.Backend;

/** LLM.int8()'s product on a backend, for tests of other packages. */
public final class LlmInt8 {
  private LlmInt8() {}

  /** What the entry point binds. */
  public static Backend around(Backend backend) {
    return new OutlierLinear(backend.name()).bind(backend);
  }
}
