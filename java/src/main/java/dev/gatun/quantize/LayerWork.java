package dev.gatun.quantize;

import dev.gatun.QuantizedTensor;
import dev.gatun.Tensor;

/** One layer that is to be written. */
sealed interface LayerWork {
  /** Plain name. */
  String layer();

  /** One of {@link Quantizer#formats()}. */
  String format();

  /** Bytes of the source. */
  long bytes();

  /** Bytes of its numbers as plain floats. */
  long floats();

  /** Plain floats. */
  record Fresh(String layer, String format, Tensor weight) implements LayerWork {
    @Override
    public long bytes() {
      return weight.data().byteSize();
    }

    @Override
    public long floats() {
      return bytes();
    }
  }

  /** A weight that is quantized already. */
  record Again(String layer, String format, QuantizedTensor weight) implements LayerWork {
    @Override
    public long bytes() {
      return weight.byteSize();
    }

    @Override
    public long floats() {
      return weight.matrix().n() * weight.matrix().k() * weight.dtype().bits() / Byte.SIZE;
    }
  }
}
