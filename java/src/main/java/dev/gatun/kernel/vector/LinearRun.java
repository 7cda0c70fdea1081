package dev.gatun.kernel.vector;

import static dev.gatun.kernel.vector.Tiles.WIDTH;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.Epilogue;
import dev.gatun.kernel.LinearCall;
import dev.gatun.kernel.codec.Hadamard;
import java.lang.foreign.MemorySegment;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * One {@code linear}: x is brought into tiles once, then panels are shared out; a panel is decoded
 * {@link #DEPTH} columns at a time and multiplied by every tile of x while it is in the cache.
 * Keeps its working memory from call to call, so that a warm call allocates nothing. Which thread
 * takes which panel does not change a bit: no sum is split between threads.
 */
final class LinearRun {
  /**
   * Columns that are decoded at once: the block of a panel and as many columns of a tile of x fit
   * into the L1 cache.
   */
  static final int DEPTH = 256;

  /** Numbers of x that are in tiles at once, and their rows. */
  private static final int MAX_X = 1 << 23;

  private static final int MAX_ROWS = 768;

  /** Outputs that wait for their caller to store them. */
  private static final int MAX_OUTPUTS = 1 << 24;

  /** Panels that share a pass over the tiles when there are many, so that x is read less often. */
  private static final int TOGETHER = 4;

  private static final int MANY_ROWS = 4 * Tiles.LARGE;

  /** Multiplications, decoding included, below which helpers cost more than they save. */
  private static final long ALONE = 1 << 20;

  private static final int DECODING = 4;

  /** Numbers of x that share a scale with compute type I8_BLOCK. */
  private static final int BLOCK = 32;

  /** What one thread works with. */
  private static final class Scratch {
    final Decoder decoder = new Decoder();
    final Activator activator = new Activator();
    final float[][] blocks = new float[TOGETHER][DEPTH * WIDTH];
    final short[] halves = new short[Rows.PIECE];
    final float[] bias = new float[WIDTH];
    final float[] other = new float[WIDTH];
    float[] sums = {};
    float[] row = {};
    float[] factors = {};
    double[] turned = {};
  }

  private final Workers workers;
  private final Scratch[] scratches;
  private final Workers.Job tiling = this::tile;
  private final Workers.Job multiplying = this::multiply;
  private float[] tiles = {};
  private float[] outputs = {};

  // The call, while it runs.
  private @Nullable Panels weight;
  private @Nullable LinearCall<MemorySegment> call;
  private long firstRow;
  private int rows;
  private int together;
  private boolean direct;

  LinearRun(Workers workers) {
    this.workers = workers;
    scratches = new Scratch[workers.threads()];
    for (int i = 0; i < scratches.length; i++) {
      scratches[i] = new Scratch();
    }
  }

  /** The call has been checked. */
  void run(Panels weight, LinearCall<MemorySegment> call, int threads) {
    this.weight = weight;
    this.call = call;
    long m = call.m();
    long n = weight.n();
    try {
      Thread helper = workers.helper();
      boolean small = n * weight.k * (double) (m + DECODING) < ALONE;
      int used =
          small || helper == null || !isShared(call.bias(), helper)
              ? 1
              : Math.min(threads, workers.threads());
      // Memory of a confined arena is touched by its owner alone.
      boolean xShared =
          used > 1
              && helper != null
              && isShared(call.x(), helper)
              && isShared(call.multiplier(), helper);
      direct =
          used == 1
              || (helper != null && isShared(call.y(), helper) && isShared(call.other(), helper));
      if (!direct && n > MAX_OUTPUTS) {
        used = 1;
        direct = true;
      }
      int atOnce = rowsAtOnce(weight.k, direct ? 1 : n);
      for (firstRow = 0; firstRow < m; firstRow += rows) {
        rows = (int) Math.min(atOnce, m - firstRow);
        pass(weight, call, used, xShared);
      }
    } finally {
      this.weight = null;
      this.call = null;
    }
  }

  private static boolean isShared(@Nullable MemorySegment memory, Thread helper) {
    return memory == null || memory.isAccessibleBy(helper);
  }

  private static int rowsAtOnce(int k, long outputs) {
    long most = Math.min(MAX_ROWS, MAX_X / Math.max(1, k));
    most = Math.min(most, MAX_OUTPUTS / Math.max(1, outputs));
    if (most >= Tiles.LARGE) {
      return (int) (most / Tiles.LARGE * Tiles.LARGE);
    }
    return most >= Tiles.SMALL ? Tiles.SMALL : 1;
  }

  /** All panels times the rows from {@code firstRow} on. */
  private void pass(Panels weight, LinearCall<MemorySegment> call, int threads, boolean xShared) {
    int padded = Tiles.padded(rows);
    int n = Math.toIntExact(weight.n());
    tiles = grown(tiles, padded * weight.k);
    if (!direct) {
      outputs = grown(outputs, rows * n);
    }
    workers.run(tiling, Math.ceilDiv(rows, Tiles.LARGE), xShared ? threads : 1);
    int panels = Math.ceilDiv(n, WIDTH);
    boolean many = rows >= MANY_ROWS && panels >= 2 * TOGETHER * threads;
    together = many ? TOGETHER : 1;
    workers.run(multiplying, Math.ceilDiv(panels, together), threads);
    if (!direct) {
      for (int r = 0; r < rows; r++) {
        for (int first = 0; first < n; first += WIDTH) {
          store(call, r, first, Math.min(WIDTH, n - first), outputs, r * n + first, scratches[0]);
        }
      }
    }
  }

  private static float[] grown(float[] array, int size) {
    return array.length >= size ? array : new float[size];
  }

  /** Brings the rows of some tiles of x side by side. */
  private void tile(int unit, int worker) {
    LinearCall<MemorySegment> c = call;
    Panels w = weight;
    if (c == null || w == null) {
      return;
    }
    int k = w.k;
    Scratch s = scratches[worker];
    s.row = grown(s.row, k);
    int row = unit * Tiles.LARGE;
    int end = Math.min(rows, row + Tiles.LARGE);
    while (row < end) {
      int height = Tiles.height(end - row);
      int start = row * k;
      if (height > end - row) {
        Arrays.fill(tiles, start, start + height * k, 0);
      }
      for (int r = 0; r < height && row + r < end; r++) {
        Lanes.load(c.xType(), c.x(), (firstRow + row + r) * c.ldx(), s.row, 0, k, s.halves);
        multiplyBy(c.multiplier(), s, k);
        prepare(s, w, c, k);
        if (height == 1) {
          System.arraycopy(s.row, 0, tiles, start, k);
        } else {
          scatter(s.row, k, tiles, start + r, height);
        }
      }
      row += height;
    }
  }

  private static void multiplyBy(@Nullable MemorySegment multiplier, Scratch s, int k) {
    if (multiplier == null) {
      return;
    }
    s.factors = grown(s.factors, k);
    MemorySegment.copy(multiplier, Lanes.FLOAT, 0, s.factors, 0, k);
    for (int i = 0; i < k; i++) {
      s.row[i] *= s.factors[i];
    }
  }

  private static void scatter(float[] row, int k, float[] tiles, int start, int height) {
    for (int i = 0; i < k; i++) {
      tiles[start + i * height] = row[i];
    }
  }

  /** Rounds or quantizes a row of x as the compute type does. */
  private static void prepare(Scratch s, Panels w, LinearCall<MemorySegment> call, int k) {
    switch (call.compute()) {
      case F32 -> {}
      case BF16 -> Lanes.round(Encoding.BF16, s.row, 0, k);
      case F8_ROW, F8_BLOCK, F8, I8_STATIC ->
          throw new IllegalStateException(call.compute() + " is not multiplied here");
      case I8 -> {
        turn(s, w, k);
        if (!call.isRounded()) {
          quantize(s.row, 0, k);
        }
      }
      case I8_BLOCK -> {
        turn(s, w, k);
        for (int i = 0; i < k; i += BLOCK) {
          quantize(s.row, i, Math.min(k, i + BLOCK));
        }
      }
    }
  }

  /** An integer multiply takes rotated codes as they are and turns x instead. */
  private static void turn(Scratch s, Panels w, int k) {
    int size = w.matrix.rotation();
    if (size <= 1) {
      return;
    }
    if (s.turned.length < size) {
      s.turned = new double[size];
    }
    for (int i = 0; i < k; i += size) {
      for (int j = 0; j < size; j++) {
        s.turned[j] = s.row[i + j];
      }
      Hadamard.apply(s.turned, 0, size);
      for (int j = 0; j < size; j++) {
        s.row[i + j] = (float) s.turned[j];
      }
    }
  }

  /**
   * Numbers rounded to 255 multiples of their largest / 127. With NaN or infinity among them they
   * have no scale and stay as they are.
   */
  private static void quantize(float[] row, int from, int to) {
    float largest = Lanes.largest(row, from, to);
    if (Float.isNaN(largest) || Float.isInfinite(largest)) {
      return;
    }
    float scale = largest / 127f;
    if (scale == 0) {
      Arrays.fill(row, from, to, 0);
    } else {
      Lanes.toMultiples(row, from, to, scale);
    }
  }

  /** Multiplies some panels by all tiles. */
  private void multiply(int unit, int worker) {
    LinearCall<MemorySegment> c = call;
    Panels w = weight;
    if (c == null || w == null) {
      return;
    }
    Compute compute = c.compute();
    Scratch s = scratches[worker];
    int first = unit * together;
    int count = Math.min(together, Math.ceilDiv((int) w.n(), WIDTH) - first);
    int each = Tiles.padded(rows) * WIDTH;
    s.sums = grown(s.sums, count * each);
    if (w.k == 0) {
      Arrays.fill(s.sums, 0, count * each, 0);
    }
    MemorySegment scales = w.scales;
    if (rows == 1 && scales != null && OneRow.takes(w, compute)) {
      for (int i = 0; i < count; i++) {
        OneRow.multiply(w, first + i, scales, compute, tiles, s.sums, i * each);
        emit(w, c, first + i, s, i * each);
      }
      return;
    }
    for (int k0 = 0; k0 < w.k; k0 += DEPTH) {
      int k1 = Math.min(w.k, k0 + DEPTH);
      for (int i = 0; i < count; i++) {
        s.decoder.decode(w, first + i, k0, k1, compute, s.blocks[i]);
      }
      int row = 0;
      while (row < rows) {
        int height = Tiles.height(rows - row);
        int xAt = row * w.k + k0 * height;
        for (int i = 0; i < count; i++) {
          Tiles.multiply(
              height, tiles, xAt, s.blocks[i], k1 - k0, s.sums, i * each + row * WIDTH, k0 == 0);
        }
        row += height;
      }
    }
    for (int i = 0; i < count; i++) {
      emit(w, c, first + i, s, i * each);
    }
  }

  /** Adds the bias, activates and stores the outputs of one panel. */
  private void emit(Panels w, LinearCall<MemorySegment> c, int panel, Scratch s, int at) {
    long first = (long) panel * WIDTH;
    int n = (int) w.n();
    int count = (int) Math.min(WIDTH, n - first);
    MemorySegment addend = c.bias();
    if (addend != null) {
      MemorySegment.copy(addend, Lanes.FLOAT, 4 * first, s.bias, 0, count);
      for (int r = 0; r < rows; r++) {
        addTo(s.sums, at + r * WIDTH, s.bias, count);
      }
    }
    Epilogue.Activation activation = c.epilogue().activation();
    if (activation != Epilogue.Activation.NONE) {
      s.activator.apply(activation, s.sums, at, rows * WIDTH);
    }
    for (int r = 0; r < rows; r++) {
      if (direct) {
        store(c, r, first, count, s.sums, at + r * WIDTH, s);
      } else {
        System.arraycopy(s.sums, at + r * WIDTH, outputs, r * n + (int) first, count);
      }
    }
  }

  /** Combines up to a panel's outputs of one row with what they are combined with; stores them. */
  private void store(
      LinearCall<MemorySegment> c, int r, long first, int count, float[] from, int at, Scratch s) {
    MemorySegment with = c.other();
    if (with != null) {
      long index = (firstRow + r) * c.ldOther() + first;
      Lanes.load(c.yType(), with, index, s.other, 0, count, s.halves);
      if (c.epilogue().combine() == Epilogue.Combine.ADD) {
        addTo(from, at, s.other, count);
      } else {
        for (int i = 0; i < count; i++) {
          from[at + i] *= s.other[i];
        }
      }
    }
    Lanes.store(c.yType(), from, at, count, c.y(), (firstRow + r) * c.ldy() + first, s.halves);
  }

  private static void addTo(float[] sums, int at, float[] addend, int count) {
    for (int i = 0; i < count; i++) {
      sums[at + i] += addend[i];
    }
  }
}
