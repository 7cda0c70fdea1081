package dev.gatun.bench.demo;

import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.logging.Level;
import java.util.logging.Logger;
import java.util.stream.IntStream;

/** Turns sentences into token ids with the model's own vocabulary. */
final class Tokenizer implements AutoCloseable {
  /** Held here: the logging framework keeps loggers weakly and would forget the level. */
  private static final Logger LIBRARY = Logger.getLogger("ai.djl");

  private final HuggingFaceTokenizer tokenizer;

  /**
   * Opens a {@code tokenizer.json}.
   *
   * @param cache where the library unpacks its native half
   */
  Tokenizer(Path json, Path cache) {
    // The library reads these once, when it loads; it must neither write to the home directory nor
    // look for a network.
    System.setProperty("DJL_CACHE_DIR", cache.toString());
    System.setProperty("ENGINE_CACHE_DIR", cache.toString());
    System.setProperty("RUST_FLAVOR", "cpu");
    System.setProperty("OPT_OUT_TRACKING", "true");
    System.setProperty("ai.djl.offline", "true");
    LIBRARY.setLevel(Level.SEVERE); // it warns of every machine without a GPU
    try {
      tokenizer =
          HuggingFaceTokenizer.newInstance(
              json, Map.of("padding", "false", "truncation", "true", "maxLength", "128"));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  /** Token ids of one sentence, [CLS] and [SEP] included. */
  long[] ids(String sentence) {
    return tokenizer.encode(sentence).getIds();
  }

  /**
   * Batches of so many sentences of about the same length, so that padding costs little whoever
   * pads.
   */
  List<Batch> batches(List<String> sentences, int size) {
    List<long[]> tokens = sentences.stream().map(this::ids).toList();
    List<Integer> order =
        IntStream.range(0, tokens.size())
            .boxed()
            .sorted(Comparator.comparingInt(i -> tokens.get(i).length))
            .toList();
    List<Batch> batches = new ArrayList<>();
    for (int start = 0; start < order.size(); start += size) {
      List<Integer> part = order.subList(start, Math.min(order.size(), start + size));
      batches.add(new Batch(part, part.stream().map(tokens::get).toList()));
    }
    return batches;
  }

  @Override
  public void close() {
    tokenizer.close();
  }
}
