package dev.gatun.kernel;

import dev.gatun.Compute;

/**
 * A weight laid out once for a backend's {@code linear}. Immutable, safe for any number of threads
 * until closed.
 */
public interface PackedWeight extends AutoCloseable {
  /** Output features. */
  long n();

  /** Input features. */
  long k();

  /** Bytes that the packed form takes. */
  long byteSize();

  /**
   * The name of the kernel that {@code linear} runs for this weight, compute type and number of
   * rows.
   */
  String kernel(Compute compute, long m);

  /**
   * Frees the packed form. A second call does nothing; a later use is an {@link
   * IllegalStateException}.
   */
  @Override
  void close();
}
