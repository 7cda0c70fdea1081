package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;
import java.util.Optional;

/**
 * Chooses scales, offsets and codes of a matrix anew, block by block, where the format's own
 * library has chosen them before: what the layout stores, and in which types, stays.
 *
 * <p>A code means {@code (value - zero) · scale + offset}; a number w becomes the code that is
 * nearest to {@code (w - offset) / scale + zero}.
 */
public final class ScaleFitter {
  private final Matrix m;
  private final Scaling scaling;
  private final CodeValues values;

  private ScaleFitter(Matrix m, Scaling scaling) {
    this.m = m;
    this.scaling = scaling;
    this.values = CodeValues.of(m);
  }

  /**
   * Why such scales cannot be chosen for a matrix, in one clause; empty when they can.
   * Half-quadratic quantization is not done here.
   */
  public static Optional<String> refuses(Matrix m, Scaling scaling) {
    if (m.encoding().isBlock()) {
      return Optional.of("blocks of " + m.encoding() + " have a rule of their own");
    }
    boolean fits = scaling.scale().kind() != ScaleMethod.Kind.ABSMAX;
    if (fits && m.nested().isPresent()) {
      return Optional.of("its scales are quantized themselves");
    }
    if (m.columnGroups().isPresent() || m.rowScales().isPresent() || m.rotation() > 1) {
      return Optional.of("its weights are rotated, reordered or scaled twice");
    }
    return Optional.empty();
  }

  /**
   * Fits scales and codes to a weight.
   *
   * @param m filled by the format's own rule
   * @param weight N × K numbers
   * @param type of them: F32, F16 or BF16
   * @param scaling with the layer's own seed
   * @throws GatunException when {@link #refuses} says so
   */
  public static void fit(Matrix m, MemorySegment weight, Encoding type, Scaling scaling) {
    if (scaling.isDefault()) {
      return;
    }
    refuses(m, scaling)
        .ifPresent(
            why -> {
              throw new GatunException(
                  "scale: found " + scaling + ", expected " + Scaling.DEFAULT + ": " + why);
            });
    ScaleFitter fitter = new ScaleFitter(m, scaling);
    ScaleBlock.forEach(m, weight, type, fitter::fit);
  }

  /**
   * A scale and an offset as they are stored.
   *
   * @param offset with the sign that it is stored with
   */
  record Pair(float scale, float offset) {}

  private void fit(ScaleBlock block) {
    Pair before = stored(block);
    float[] range = block.range();
    boolean usable =
        Float.isFinite(before.scale) && before.scale != 0 && Float.isFinite(range[0] + range[2]);
    if (!usable) {
      return; // zeros stay zeros, and what is not finite is refused by whoever measures the error
    }
    Pair chosen =
        switch (scaling.scale().kind()) {
          case PERCENTILE -> percentile(block, before, range);
          case MSE -> new ScaleSearch(m, values, block).best(before, range);
          default -> before;
        };
    if (!chosen.equals(before) && scaling.scale().kind() == ScaleMethod.Kind.MSE) {
      chosen = error(block, chosen) < errorOfCodes(block) ? chosen : before;
    }
    boolean drawn = scaling.rounding() == Rounding.STOCHASTIC;
    if (drawn || !chosen.equals(before)) {
      store(block, chosen);
      encode(block, drawn);
    }
  }

  private Pair percentile(ScaleBlock block, Pair before, float[] range) {
    double p = scaling.scale().percentile();
    if (p == 100) {
      return before;
    }
    if (m.offsets().isPresent()) {
      double low = block.percentile(100 - p, false);
      double high = block.percentile(p, false);
      return high > low ? affine(m, values, low, high) : before;
    }
    double share = block.percentile(p, true) / range[2];
    Pair pair = new Pair(storable(m, before.scale * share), 0);
    return pair.scale == 0 ? before : pair;
  }

  /** What is stored when the smallest code means {@code low} and the largest {@code high}. */
  static Pair affine(Matrix m, CodeValues values, double low, double high) {
    double global = m.globalScale();
    double step = (high - low) / (values.largest() - (double) values.smallest());
    float scale = storable(m, step / global);
    double offset = low - (values.smallest() - (double) m.zeroPoint()) * scale * global;
    Matrix.Values offsets = m.offsets().orElseThrow();
    float signed = (float) (m.offsetsSubtracted() ? -offset : offset);
    return new Pair(scale, HalfFloat.round(offsets.type(), signed));
  }

  /** The nearest scale that the matrix can hold. */
  static float storable(Matrix m, double scale) {
    Encoding type = m.scales().orElseThrow().type();
    float near = (float) scale;
    return switch (type) {
      case F32, F16, BF16 -> HalfFloat.round(type, near);
      default -> {
        byte[] one = new byte[1];
        MemorySegment memory = MemorySegment.ofArray(one);
        Numbers.put(type, memory, 0, near);
        yield Numbers.get(type, memory, 0);
      }
    };
  }

  private Pair stored(ScaleBlock block) {
    float offset =
        m.offsets().isEmpty()
            ? 0
            : Numbers.get(
                m.offsets().get().type(),
                m.offsets().get().data(),
                MatrixValues.index(m, block.row(), block.column()));
    return new Pair(MatrixValues.storedScale(m, block.row(), block.column()), offset);
  }

  private void store(ScaleBlock block, Pair pair) {
    if (m.nested().isEmpty()) {
      long at = MatrixValues.scaleIndex(m, block.row(), block.column());
      m.scales().ifPresent(s -> Numbers.put(s.type(), s.data(), at, pair.scale));
    }
    long at = MatrixValues.index(m, block.row(), block.column());
    m.offsets().ifPresent(o -> Numbers.put(o.type(), o.data(), at, pair.offset));
  }

  /** One pair as the matrix computes with it. */
  record Decoder(Matrix m, CodeValues values, float scale, float zero, float offset, float after) {
    static Decoder of(Matrix m, CodeValues values, ScaleBlock block, Pair pair) {
      Encoding arithmetic = m.arithmetic();
      float stored = HalfFloat.round(arithmetic, pair.scale);
      float global = HalfFloat.round(arithmetic, m.globalScale());
      boolean then = m.scaleOrder() == ScaleOrder.THEN_GLOBAL;
      float scale =
          then || m.globalScale() == 1f ? stored : HalfFloat.round(arithmetic, stored * global);
      return new Decoder(
          m,
          values,
          scale,
          MatrixValues.zero(m, block.row(), block.column()),
          m.offsetsSubtracted() ? -pair.offset : pair.offset,
          then ? global : 1f);
    }

    /** Where a number lies among the codes' numbers. */
    double place(float w) {
      return ((double) w - offset) / ((double) scale * after) + zero;
    }

    /** What the code that is nearest to a number means. */
    float nearest(float w) {
      return meaning(values.value(values.code((float) place(w))));
    }

    private float meaning(float decoded) {
      Encoding arithmetic = m.arithmetic();
      float value = HalfFloat.round(arithmetic, (decoded - zero) * scale);
      if (after != 1f) {
        value = HalfFloat.round(arithmetic, value * after);
      }
      if (m.offsets().isPresent()) {
        value = HalfFloat.round(arithmetic, value + offset);
      }
      return HalfFloat.round(m.result(), value);
    }
  }

  /** The squared error when every number takes its nearest code. */
  private double error(ScaleBlock block, Pair pair) {
    Decoder decoder = Decoder.of(m, values, block, pair);
    double[] sum = new double[1];
    block.pieces(
        (from, length, piece) -> {
          for (int i = 0; i < length; i++) {
            double difference = decoder.nearest(piece[i]) - (double) piece[i];
            sum[0] += difference * difference;
          }
        });
    return sum[0];
  }

  /** The squared error as the codes are now. */
  private double errorOfCodes(ScaleBlock block) {
    Decoder decoder = Decoder.of(m, values, block, stored(block));
    double[] sum = new double[1];
    block.pieces(
        (from, length, piece) -> {
          for (int i = 0; i < length; i++) {
            long flat = block.flat(from + i);
            float decoded = MatrixValues.decode(m, flat / m.k(), flat % m.k());
            double difference = decoder.meaning(decoded) - (double) piece[i];
            sum[0] += difference * difference;
          }
        });
    return sum[0];
  }

  private void encode(ScaleBlock block, boolean drawn) {
    Decoder decoder = Decoder.of(m, values, block, stored(block));
    block.pieces(
        (from, length, piece) -> {
          for (int i = 0; i < length; i++) {
            long flat = block.flat(from + i);
            double place = decoder.place(piece[i]);
            int code =
                drawn
                    ? values.drawn(place, RandomUnit.at(scaling.seed(), flat))
                    : values.code((float) place);
            MatrixValues.putCode(m, flat / m.k(), flat % m.k(), code);
          }
        });
  }
}
