package dev.gatun;

import java.io.Serial;

/** A GPU has not as much memory free as was asked for. */
public class CudaOutOfMemoryException extends GatunException {
  @Serial private static final long serialVersionUID = 1L;

  private final long askedBytes;
  private final long freeBytes;

  /**
   * @param message one line that says bytes asked and free
   * @param askedBytes how much was asked for
   * @param freeBytes how much the device had
   */
  public CudaOutOfMemoryException(String message, long askedBytes, long freeBytes) {
    super(message);
    this.askedBytes = askedBytes;
    this.freeBytes = freeBytes;
  }

  /** How much was asked for. */
  public long askedBytes() {
    return askedBytes;
  }

  /** How much the device had. */
  public long freeBytes() {
    return freeBytes;
  }
}
