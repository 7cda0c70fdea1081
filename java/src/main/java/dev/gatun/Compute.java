package dev.gatun;

import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/**
 * What the multiply of {@code linear} is done in. The static ones are for calibrated layers: they
 * round x with the layer's own scale first, whatever x holds, and then multiply as another one.
 */
public enum Compute {
  /** Weights dequantized exactly; float products and sums. */
  F32(1),
  /** x and the dequantized weight rounded to bfloat16; float sums. */
  BF16(2),
  /**
   * x quantized per row (absmax / 127, ties to even); integer products per scale block. A row of x
   * with NaN or infinity has no scale: it is multiplied as it is, and on a GPU comes out as NaN. So
   * it is with the other types that quantize x.
   */
  I8(3),
  /** The same, but x quantized per 32 consecutive k, as ggml's engine does. */
  I8_BLOCK(4),
  /**
   * x quantized per row to F8_E4M3 (absmax / 448), products with weights that are 8-bit floats,
   * float sums. Tensor cores add such products with fewer bits than a float has: on a GPU a sum of
   * more than 16 rows of x differs from the definition by up to some 3e-4 of its size.
   */
  F8_ROW(5),
  /**
   * The same, but x quantized per 128 consecutive k, as DeepSeek's checkpoints have it. A GPU
   * rounds the product of a code of x and its scale to bfloat16 where it does not multiply bytes:
   * for up to 16 rows of x, weights other than F8_E4M3, and scales of other blocks.
   */
  F8_BLOCK(6),
  /**
   * x rounded to 8-bit floats with the layer's {@code input_scale}, float products and sums:
   * ComfyUI's {@code float8_*} layers (scale 1 where none is stored) and quanto's with qfloat8
   * activations. A GPU multiplies F8_E4M3 by weights that are 8-bit floats as bytes, with what
   * {@link #F8_ROW} says of sums.
   */
  F8(0),
  /**
   * x rounded to 8-bit integers with the layer's {@code input_scale}, integer products per scale
   * block: quanto's layers with qint8 activations.
   */
  I8_STATIC(0);

  private static final List<Compute> MULTIPLIES =
      Arrays.stream(values()).filter(c -> !c.isStatic()).toList();

  private final int id;

  Compute(int id) {
    this.id = id;
  }

  /** The number by which the native library knows it; 0 for the static ones, which it does not. */
  public int id() {
    return id;
  }

  /** Whether x becomes 8-bit integers, and integers are multiplied. */
  public boolean isIntegers() {
    return this == I8 || this == I8_BLOCK;
  }

  /** Whether x becomes 8-bit floats with scales of its own, and those are multiplied. */
  public boolean isFloats8() {
    return this == F8_ROW || this == F8_BLOCK;
  }

  /** Whether x is rounded with the layer's own scale before it is multiplied. */
  public boolean isStatic() {
    return this == F8 || this == I8_STATIC;
  }

  /** What multiplies when x has been rounded: itself, F32 for F8, I8 for I8_STATIC. */
  public Compute multiply() {
    return switch (this) {
      case F8 -> F32;
      case I8_STATIC -> I8;
      default -> this;
    };
  }

  /** Those that kernels exist for: all but the static ones. */
  public static List<Compute> multiplies() {
    return MULTIPLIES;
  }

  /**
   * The compute type of this name.
   *
   * @param name in any case: {@code f32}, {@code i8_static} …
   * @throws GatunException when there is none
   */
  public static Compute of(String name) {
    for (Compute compute : values()) {
      if (compute.name().equalsIgnoreCase(name)) {
        return compute;
      }
    }
    List<String> names =
        Arrays.stream(values()).map(c -> c.name().toLowerCase(Locale.ROOT)).toList();
    throw new GatunException("no compute type '" + name + "', expected one of " + names);
  }
}
