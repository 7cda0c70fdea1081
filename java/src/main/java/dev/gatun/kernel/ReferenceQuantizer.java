package dev.gatun.kernel;

import dev.gatun.Encoding;
import dev.gatun.kernel.codec.Codebooks;
import dev.gatun.kernel.codec.GgufQuantizer;
import dev.gatun.kernel.codec.HalfFloat;
import dev.gatun.kernel.codec.Numbers;
import java.lang.foreign.MemorySegment;

/** Quantizes one matrix block by block, as {@link QuantizeRule} says. */
final class ReferenceQuantizer {
  private final Matrix m;
  private final QuantizeRule rule;
  private final MemorySegment w;
  private final Encoding wType;

  ReferenceQuantizer(Matrix m, QuantizeRule rule, MemorySegment w, Encoding wType) {
    this.m = m;
    this.rule = rule;
    this.w = w;
    this.wType = wType;
  }

  void run() {
    if (m.encoding().isBlock()) {
      selfContained();
      return;
    }
    long n = m.n();
    long k = m.k();
    switch (m.granularity()) {
      case Granularity.Tile t -> {
        long row = 0;
        while (row < n) {
          long rows = Math.min(t.rows(), n - row);
          long column = 0;
          while (column < k) {
            long columns = Math.min(t.cols(), k - column);
            block(row * k + column, rows, columns);
            column += columns;
          }
          row += rows;
        }
      }
      case Granularity.Flat f -> {
        long start = 0;
        while (start < n * k) {
          long count = Math.min(f.block(), n * k - start);
          block(start, 1, count);
          start += count;
        }
      }
    }
  }

  /** GGUF's blocks: each encoding has a rule of its own. */
  private void selfContained() {
    float[] x = new float[m.encoding().blockElements()];
    for (long row = 0; row < m.n(); row++) {
      for (long column = 0; column < m.k(); column += x.length) {
        for (int i = 0; i < x.length; i++) {
          x[i] = Numbers.get(wType, w, row * m.k() + column + i);
        }
        GgufQuantizer.encode(m.encoding(), x, m.codes(), Codes.block(m, row, column));
      }
    }
  }

  /** {@code rows} runs of {@code columns} elements, K apart, that share a scale. */
  private void block(long first, long rows, long columns) {
    float scale =
        rule.keepScales()
            ? MatrixValues.scale(m, first / m.k(), first % m.k())
            : newScale(first, rows, columns);
    if (!rule.keepScales()) {
      Matrix.Values scales = m.scales().orElseThrow();
      Numbers.put(
          scales.type(),
          scales.data(),
          MatrixValues.scaleIndex(m, first / m.k(), first % m.k()),
          scale);
    }
    // With stored scales of a wider type the library takes the reciprocal before it rounds.
    float stored =
        rule.keepScales()
            ? MatrixValues.storedScale(m, first / m.k(), first % m.k()) * m.globalScale()
            : scale;
    boolean codebook = m.encoding() == Encoding.NF4 || m.encoding() == Encoding.FP4;
    boolean multiply = rule.reciprocal() || codebook;
    float reciprocal = round(1f / stored);
    for (long row = 0; row < rows; row++) {
      for (long i = 0; i < columns; i++) {
        long at = first + row * m.k() + i;
        int code;
        if (scale == 0 && rule.zeroCode() >= 0) {
          code = rule.zeroCode();
        } else {
          float v = value(at);
          float q = multiply ? round(v * reciprocal) : round(v / scale);
          code = Codebooks.encode(m.encoding(), clamp(q));
        }
        MatrixValues.putCode(m, at / m.k(), at % m.k(), code);
      }
    }
  }

  private float newScale(long first, long rows, long columns) {
    float largest = 0;
    for (long row = 0; row < rows; row++) {
      for (long i = 0; i < columns; i++) {
        largest = Math.max(largest, Math.abs(value(first + row * m.k() + i)));
      }
    }
    return Math.max(round(largest / rule.divisor()), rule.scaleFloor());
  }

  private float clamp(float q) {
    return q < rule.codeMin() ? rule.codeMin() : q > rule.codeMax() ? rule.codeMax() : q;
  }

  private float value(long index) {
    return round(Numbers.get(wType, w, index));
  }

  private float round(float value) {
    return HalfFloat.round(rule.arithmetic(), value);
  }
}
