package dev.gatun.kernel;

import java.nio.charset.StandardCharsets;

/**
 * How numbers become scales and codes where the format's own library does not lay it down.
 *
 * @param scale how scales are chosen
 * @param rounding how codes are
 * @param seed of {@link Rounding#STOCHASTIC}
 */
public record Scaling(ScaleMethod scale, Rounding rounding, long seed) {
  /** As the format's own library does it, to the last bit. */
  public static final Scaling DEFAULT = new Scaling(ScaleMethod.ABSMAX, Rounding.NEAREST, 0);

  private static final long FNV_OFFSET = 0xCBF29CE484222325L;
  private static final long FNV_PRIME = 0x100000001B3L;

  /** A way to choose scales, rounding to nearest. */
  public static Scaling of(ScaleMethod scale) {
    return new Scaling(scale, Rounding.NEAREST, 0);
  }

  /** Whether this is what the format's own library does. */
  public boolean isDefault() {
    return scale.kind() == ScaleMethod.Kind.ABSMAX && rounding == Rounding.NEAREST;
  }

  /** The same with a seed of the layer's own, so that no two layers draw the same numbers. */
  public Scaling forLayer(String layer) {
    long hash = FNV_OFFSET;
    for (byte b : layer.getBytes(StandardCharsets.UTF_8)) {
      hash = (hash ^ (b & 0xFF)) * FNV_PRIME;
    }
    return new Scaling(scale, rounding, RandomUnit.mix(seed + hash));
  }

  /** Of a layer's, what follows its first so many numbers when they are fitted by themselves. */
  public Scaling after(long numbers) {
    return new Scaling(scale, rounding, RandomUnit.after(seed, numbers));
  }

  /** {@code mse stochastic seed 7}. */
  @Override
  public String toString() {
    return scale.text()
        + " "
        + rounding.text()
        + (rounding == Rounding.STOCHASTIC ? " seed " + seed : "");
  }
}
