package dev.gatun;

import dev.gatun.kernel.codec.Fp8;
import java.util.Objects;

/**
 * How the library of a checkpoint format rounds a layer's activations with scales from the file.
 *
 * @param encoding I8 or an 8-bit float
 * @param reciprocal see {@link Rounding}
 * @param outputs whether y is rounded as well, with a scale of its own
 */
public record StaticActivations(Encoding encoding, boolean reciprocal, boolean outputs) {
  /** Refuses other encodings. */
  public StaticActivations {
    Objects.requireNonNull(encoding, "encoding");
    if (encoding != Encoding.I8 && !Fp8.is(encoding)) {
      throw new GatunException(
          "activations: found " + encoding + ", expected I8 or an 8-bit float");
    }
  }

  /** The same with y as it is: for layers whose outputs only operations on floats use. */
  public StaticActivations streamlined() {
    return new StaticActivations(encoding, reciprocal, false);
  }

  /** The compute type that rounds x so: I8_STATIC or F8. */
  public Compute compute() {
    return encoding == Encoding.I8 ? Compute.I8_STATIC : Compute.F8;
  }
}
