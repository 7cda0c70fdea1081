package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import java.io.IOException;
import java.nio.file.Path;

/** Writing came to an end in the middle: the disk is full or gone. What was written is there. */
public final class OutputException extends GatunException {
  private static final long serialVersionUID = 1;

  /**
   * One line that names the file and the reason.
   *
   * @param target where the file would have been
   */
  public OutputException(Path target, IOException e) {
    this(String.valueOf(OutputFile.failed(target, e).getMessage()), e);
  }

  private OutputException(String message, Throwable cause) {
    super(message, cause);
  }

  /** The same with more to say. */
  public OutputException with(String more) {
    return new OutputException(getMessage() + more, this);
  }
}
