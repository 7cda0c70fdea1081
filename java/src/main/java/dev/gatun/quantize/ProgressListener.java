package dev.gatun.quantize;

/** Hears how far a run over a checkpoint has come; called on the thread that runs it. */
public interface ProgressListener {
  /** Hears nothing. */
  ProgressListener NONE = new ProgressListener() {};

  /** The run begins: so many bytes of tensors will be read. */
  default void start(long totalBytes) {}

  /** So many more bytes are done, the last of them of this tensor or layer. */
  default void advance(String name, long bytes) {}

  /** A layer has been quantized. */
  default void layer(LayerReport report) {}

  /** Something that the user should know and that is no error. */
  default void warning(String line) {}
}
