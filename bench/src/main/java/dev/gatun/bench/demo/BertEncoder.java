package dev.gatun.bench.demo;

import dev.gatun.Compute;
import dev.gatun.Device;
import dev.gatun.Epilogue;
import dev.gatun.GatunException;
import dev.gatun.Linear;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.DType;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Function;

/**
 * BERT's encoder with every linear layer on Gatun and everything else in plain Java.
 *
 * <p>The tokens of all sentences of a batch lie one after the other, without padding, so that a
 * linear layer is one matrix product with as many rows as the batch has tokens; attention alone
 * looks at one sentence at a time. Every caller works on its own {@link Scratch}; the weights are
 * shared.
 */
final class BertEncoder implements Encoder {
  private static final ValueLayout.OfFloat FLOAT =
      ValueLayout.JAVA_FLOAT_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private static final Epilogue GELU = Epilogue.of(Epilogue.Activation.GELU);
  private static final Epilogue ADD = Epilogue.of(Epilogue.Combine.ADD);

  /** The parameters of one LayerNorm. */
  private record Norm(float[] weight, float[] bias) {}

  private record Layer(
      Linear query,
      Linear key,
      Linear value,
      Linear output,
      Norm attentionNorm,
      Linear up,
      Linear down,
      Norm norm) {}

  /** Working memory of one caller for up to {@code tokens} tokens. */
  private static final class Scratch {
    final int tokens;
    final float[] state;
    final float[] query;
    final float[] key;
    final float[] value;
    final float[] mixed;
    final float[] scores;
    final float[] transposedKey;
    final MemorySegment x;
    final MemorySegment y;

    Scratch(int tokens, int hidden, int innerWidth, Arena arena) {
      this.tokens = tokens;
      state = new float[tokens * hidden];
      query = new float[tokens * hidden];
      key = new float[tokens * hidden];
      value = new float[tokens * hidden];
      mixed = new float[tokens * hidden];
      scores = new float[tokens];
      transposedKey = new float[tokens * hidden];
      long widest = (long) tokens * Math.max(hidden, innerWidth) * Float.BYTES;
      x = arena.allocate(widest, 64);
      y = arena.allocate(widest, 64);
    }
  }

  private final Arena arena = Arena.ofShared();
  private final List<Linear> linears = new ArrayList<>();
  private final List<Layer> layers = new ArrayList<>();
  private final ConcurrentLinkedQueue<Scratch> free = new ConcurrentLinkedQueue<>();
  private final Tensor words;
  private final Tensor positions;
  private final Tensor types;
  private final Norm embeddingNorm;
  private final int hidden;
  private final int innerWidth;
  private final int heads;
  private final float epsilon;

  /**
   * Packs the layers of a checkpoint that has transformers' names.
   *
   * @param checkpoint must outlive this encoder: the embeddings are read where they are mapped
   * @param compute of the linear layers
   * @throws GatunException when a tensor is missing or is not what a BERT encoder has
   */
  BertEncoder(Checkpoint checkpoint, int heads, float epsilon, Compute compute, Device device) {
    this(checkpoint, heads, epsilon, name -> checkpoint.linear(name, compute, device));
  }

  /**
   * The same on linear layers from elsewhere.
   *
   * @param source gives a layer by its plain name; the encoder closes it
   */
  BertEncoder(Checkpoint checkpoint, int heads, float epsilon, Function<String, Linear> source) {
    this.heads = heads;
    this.epsilon = epsilon;
    words = floats(checkpoint, "embeddings.word_embeddings.weight");
    positions = floats(checkpoint, "embeddings.position_embeddings.weight");
    types = floats(checkpoint, "embeddings.token_type_embeddings.weight");
    embeddingNorm = norm(checkpoint, "embeddings.LayerNorm");
    hidden = embeddingNorm.weight().length;
    if (hidden % heads != 0) {
      throw new GatunException(
          checkpoint.path()
              + ": found "
              + hidden
              + " hidden features, expected a multiple of "
              + heads);
    }
    boolean done = false;
    try {
      for (int i = 0;
          checkpoint.tensors().containsKey("encoder.layer." + i + ".output.LayerNorm.weight");
          i++) {
        layers.add(layer(checkpoint, "encoder.layer." + i, source));
      }
      if (layers.isEmpty()) {
        throw new GatunException(
            checkpoint.path() + ": found no encoder.layer.0, expected a BERT encoder");
      }
      innerWidth = Math.toIntExact(layers.getFirst().up().outFeatures());
      done = true;
    } finally {
      if (!done) {
        close();
      }
    }
  }

  private Layer layer(Checkpoint checkpoint, String name, Function<String, Linear> source) {
    return new Layer(
        linear(name + ".attention.self.query", source),
        linear(name + ".attention.self.key", source),
        linear(name + ".attention.self.value", source),
        linear(name + ".attention.output.dense", source),
        norm(checkpoint, name + ".attention.output.LayerNorm"),
        linear(name + ".intermediate.dense", source),
        linear(name + ".output.dense", source),
        norm(checkpoint, name + ".output.LayerNorm"));
  }

  private Linear linear(String name, Function<String, Linear> source) {
    Linear linear = source.apply(name);
    linears.add(linear);
    return linear;
  }

  private static Norm norm(Checkpoint checkpoint, String name) {
    return new Norm(
        array(floats(checkpoint, name + ".weight")), array(floats(checkpoint, name + ".bias")));
  }

  private static float[] array(Tensor tensor) {
    float[] values = new float[Math.toIntExact(tensor.elements())];
    MemorySegment.copy(tensor.data(), FLOAT, 0, values, 0, values.length);
    return values;
  }

  private static Tensor floats(Checkpoint checkpoint, String name) {
    Tensor tensor = checkpoint.tensor(name);
    if (tensor.dtype() != DType.F32) {
      throw new GatunException(
          checkpoint.path()
              + ": tensor '"
              + name
              + "': found "
              + tensor.dtype()
              + ", expected F32");
    }
    return tensor;
  }

  /** The kernel that the widest linear layer runs for so many tokens. */
  String kernel(int tokens) {
    return layers.getFirst().up().kernel(tokens);
  }

  @Override
  public int width() {
    return hidden;
  }

  @Override
  public float[] encode(Batch batch) {
    int tokens = batch.tokenCount();
    Scratch s = take(tokens);
    try {
      embed(batch, s);
      for (Layer layer : layers) {
        run(layer, batch, tokens, s);
      }
      return pool(batch, s);
    } finally {
      free.add(s);
    }
  }

  private Scratch take(int tokens) {
    Scratch s = free.poll();
    return s != null && s.tokens >= tokens ? s : new Scratch(tokens, hidden, innerWidth, arena);
  }

  private void embed(Batch batch, Scratch s) {
    int row = 0;
    for (long[] sentence : batch.tokens()) {
      for (int position = 0; position < sentence.length; position++) {
        copyRow(words, sentence[position], s.state, row);
        copyRow(positions, position, s.mixed, row);
        copyRow(types, 0, s.query, row);
        for (int i = row * hidden; i < (row + 1) * hidden; i++) {
          s.mixed[i] += s.query[i];
        }
        Elementwise.addAndNormalize(
            s.state,
            s.mixed,
            row * hidden,
            hidden,
            embeddingNorm.weight(),
            embeddingNorm.bias(),
            epsilon);
        row++;
      }
    }
  }

  private void copyRow(Tensor table, long id, float[] into, int row) {
    if (id < 0 || id >= table.shape().get(0)) {
      throw new GatunException(
          table.name()
              + ": found row "
              + id
              + " asked for, expected less than "
              + table.shape().get(0));
    }
    MemorySegment.copy(table.data(), FLOAT, id * hidden * Float.BYTES, into, row * hidden, hidden);
  }

  private void run(Layer layer, Batch batch, int tokens, Scratch s) {
    MemorySegment.copy(s.state, 0, s.x, FLOAT, 0, tokens * hidden);
    multiply(layer.query(), tokens, s, s.query);
    multiply(layer.key(), tokens, s, s.key);
    multiply(layer.value(), tokens, s, s.value);
    int row = 0;
    for (long[] sentence : batch.tokens()) {
      attend(row, sentence.length, s);
      row += sentence.length;
    }
    MemorySegment.copy(s.mixed, 0, s.y, FLOAT, 0, tokens * hidden);
    layer.output().forward(s.y, tokens, s.x, ADD, s.x);
    normalize(s, tokens, layer.attentionNorm());

    MemorySegment.copy(s.state, 0, s.x, FLOAT, 0, tokens * hidden);
    layer.up().forward(s.x, tokens, s.y, GELU, null);
    layer.down().forward(s.y, tokens, s.x, ADD, s.x);
    normalize(s, tokens, layer.norm());
  }

  /** One linear layer from {@code s.x}. */
  private static void multiply(Linear linear, int tokens, Scratch s, float[] into) {
    linear.forward(s.x, tokens, s.y);
    MemorySegment.copy(s.y, FLOAT, 0, into, 0, Math.toIntExact(tokens * linear.outFeatures()));
  }

  /** state = LayerNorm(x), x being what a layer has added to the state before. */
  private void normalize(Scratch s, int tokens, Norm norm) {
    MemorySegment.copy(s.x, FLOAT, 0, s.state, 0, tokens * hidden);
    for (int row = 0; row < tokens; row++) {
      Elementwise.normalize(s.state, row * hidden, hidden, norm.weight(), norm.bias(), epsilon);
    }
  }

  /**
   * mixed = softmax(query · keyᵀ / √d) · value of every head of one sentence: {@code length} tokens
   * from {@code first}. The inner loops run along memory (the keys are transposed for it) and add
   * to many sums at once, which the JIT compiler turns into vector code; a dot product would be one
   * sum in a fixed order.
   */
  private void attend(int first, int length, Scratch s) {
    int width = hidden / heads;
    float scale = (float) (1 / Math.sqrt(width));
    float[] keys = s.transposedKey;
    for (int j = 0; j < length; j++) {
      for (int i = 0; i < hidden; i++) {
        keys[i * length + j] = s.key[(first + j) * hidden + i];
      }
    }
    for (int head = 0; head < heads; head++) {
      for (int i = 0; i < length; i++) {
        int at = (first + i) * hidden + head * width;
        java.util.Arrays.fill(s.scores, 0, length, 0);
        for (int d = 0; d < width; d++) {
          addScaled(s.scores, 0, keys, (head * width + d) * length, length, s.query[at + d]);
        }
        Elementwise.softmax(s.scores, 0, length, scale);
        java.util.Arrays.fill(s.mixed, at, at + width, 0);
        for (int j = 0; j < length; j++) {
          addScaled(s.mixed, at, s.value, (first + j) * hidden + head * width, width, s.scores[j]);
        }
      }
    }
  }

  private static void addScaled(float[] sum, int at, float[] x, int from, int count, float factor) {
    for (int i = 0; i < count; i++) {
      sum[at + i] += factor * x[from + i];
    }
  }

  private float[] pool(Batch batch, Scratch s) {
    float[] out = new float[batch.size() * hidden];
    int row = 0;
    for (int i = 0; i < batch.size(); i++) {
      int length = batch.tokens().get(i).length;
      Elementwise.meanOfRows(s.state, row * hidden, length, hidden, out, i * hidden);
      Elementwise.toUnitLength(out, i * hidden, hidden);
      row += length;
    }
    return out;
  }

  @Override
  public void close() {
    linears.forEach(Linear::close);
    free.clear();
    arena.close();
  }
}
