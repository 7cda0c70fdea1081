package dev.gatun;

import java.util.Objects;

/**
 * What a linear layer does with its sums before they are stored, without another pass over y:
 *
 * <pre>y = combine(activation(x · Wᵀ + b), other)</pre>
 *
 * with a single rounding to y's type at the end. {@code other} is a matrix of y's shape and type
 * that a call brings along; it may be y itself. SwiGLU is the gate with {@link Activation#SILU}
 * into a buffer, then the up projection with {@link Combine#MULTIPLY} by it; a residual connection
 * is {@link Combine#ADD}.
 *
 * @param activation of the sum
 * @param combine of the activated sum with {@code other}
 */
public record Epilogue(Activation activation, Combine combine) {
  /** A function of one sum. */
  public enum Activation {
    /** The sum itself. */
    NONE(0),
    /** {@code v · (1 + erf(v / √2)) / 2} */
    GELU(1),
    /** {@code v · (1 + tanh(√(2/π) · (v + 0.044715 · v³))) / 2} */
    GELU_TANH(2),
    /** {@code v / (1 + exp(-v))} */
    SILU(3);

    private final int id;

    Activation(int id) {
      this.id = id;
    }

    /** The number in {@code gatun.h}: {@code GATUN_ACTIVATION_*}. */
    public int id() {
      return id;
    }
  }

  /** What becomes of the activated sum and the number of {@code other} at its place. */
  public enum Combine {
    /** The sum; there is no {@code other}. */
    NONE(0),
    /** Their sum. */
    ADD(1),
    /** Their product. */
    MULTIPLY(2);

    private final int id;

    Combine(int id) {
      this.id = id;
    }

    /** The number in {@code gatun.h}: {@code GATUN_COMBINE_*}. */
    public int id() {
      return id;
    }
  }

  /** Stores the sums as they are. */
  public static final Epilogue NONE = new Epilogue(Activation.NONE, Combine.NONE);

  /** Refuses null. */
  public Epilogue {
    Objects.requireNonNull(activation, "activation");
    Objects.requireNonNull(combine, "combine");
  }

  /** An activation alone. */
  public static Epilogue of(Activation activation) {
    return new Epilogue(activation, Combine.NONE);
  }

  /** A combination alone. */
  public static Epilogue of(Combine combine) {
    return new Epilogue(Activation.NONE, combine);
  }
}
