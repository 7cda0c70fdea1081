package dev.gatun;

import java.io.Serial;

/**
 * What was asked for cannot be done: the message is one line that names the file, the tensor, found
 * and expected.
 */
public class GatunException extends RuntimeException {
  @Serial private static final long serialVersionUID = 1L;

  /** An exception with a one-line message. */
  public GatunException(String message) {
    super(message);
  }

  /** An exception with a one-line message and what led to it. */
  public GatunException(String message, Throwable cause) {
    super(message, cause);
  }
}
