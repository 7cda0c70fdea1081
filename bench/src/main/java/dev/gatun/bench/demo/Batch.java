package dev.gatun.bench.demo;

import java.util.List;

/**
 * Sentences that are encoded together.
 *
 * @param sentences their places in the list of all sentences
 * @param tokens token ids of each sentence, the marks at both ends included
 */
record Batch(List<Integer> sentences, List<long[]> tokens) {
  Batch {
    sentences = List.copyOf(sentences);
    tokens = List.copyOf(tokens);
  }

  /** How many sentences. */
  int size() {
    return tokens.size();
  }

  /** Tokens of all sentences. */
  int tokenCount() {
    return tokens.stream().mapToInt(t -> t.length).sum();
  }

  /** Tokens of the longest sentence. */
  int longest() {
    return tokens.stream().mapToInt(t -> t.length).max().orElse(0);
  }
}
