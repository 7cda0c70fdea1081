package dev.gatun.bench.peers;

import org.jspecify.annotations.Nullable;

/**
 * The number types of a product, as {@code dnnl_data_type_t} numbers them.
 *
 * @param x of the activations
 * @param weight as it is multiplied
 * @param given the weight as it is handed over, N × K row by row
 */
record OneDnnTypes(int x, int weight, int given) {
  static final int BF16 = 2;
  static final int F32 = 3;
  static final int S8 = 5;
  static final int S4 = 11;

  /** Null when oneDNN has no such product. */
  static @Nullable OneDnnTypes of(Work work) {
    return switch (work) {
      case F32 -> new OneDnnTypes(F32, F32, F32);
      case BF16 -> new OneDnnTypes(BF16, BF16, BF16);
      case INT8_ROW -> new OneDnnTypes(S8, S8, S8);
      case INT4_G32_BF16 -> new OneDnnTypes(BF16, S4, F32);
      default -> null;
    };
  }
}
