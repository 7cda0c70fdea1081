package dev.gatun.kernel;

/** What is done with a weight. The ids are those of {@code gatun.h}. */
public enum Operation {
  QUANTIZE(1),
  DEQUANTIZE(2),
  PACK(3),
  UNPACK(4),
  LINEAR(5),
  EMBEDDING(6),
  CONVERT(7);

  private final int id;

  Operation(int id) {
    this.id = id;
  }

  /** The number by which the native library knows this operation. */
  public int id() {
    return id;
  }
}
