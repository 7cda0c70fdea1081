package dev.gatun.bench.demo;

/** Turns sentences into embeddings. Safe for concurrent callers. */
interface Encoder extends AutoCloseable {
  /** Numbers of one embedding. */
  int width();

  /** One embedding of length 1 per sentence of the batch, one after the other. */
  float[] encode(Batch batch);

  @Override
  void close();
}
