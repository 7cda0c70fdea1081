package dev.gatun.checkpoint;

import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;

/** ggml's type numbers, as they stand in GGUF files (ggml.h, enum ggml_type). */
final class GgufTypes {
  private static final Map<Integer, DType> BY_ID = new LinkedHashMap<>();
  private static final Map<DType, Integer> IDS = new EnumMap<>(DType.class);

  static {
    DType[] low = {
      DType.F32,
      DType.F16,
      DType.Q4_0,
      DType.Q4_1,
      null,
      null,
      DType.Q5_0,
      DType.Q5_1,
      DType.Q8_0,
      DType.Q8_1,
      DType.Q2_K,
      DType.Q3_K,
      DType.Q4_K,
      DType.Q5_K,
      DType.Q6_K,
      DType.Q8_K,
      DType.IQ2_XXS,
      DType.IQ2_XS,
      DType.IQ3_XXS,
      DType.IQ1_S,
      DType.IQ4_NL,
      DType.IQ3_S,
      DType.IQ2_S,
      DType.IQ4_XS,
      DType.I8,
      DType.I16,
      DType.I32,
      DType.I64,
      DType.F64,
      DType.IQ1_M,
      DType.BF16,
      null,
      null,
      null,
      DType.TQ1_0,
      DType.TQ2_0,
      null,
      null,
      null,
      DType.MXFP4,
      DType.NVFP4,
      DType.Q1_0,
      DType.Q2_0
    };
    for (int id = 0; id < low.length; id++) {
      if (low[id] != null) {
        BY_ID.put(id, low[id]);
        IDS.put(low[id], id);
      }
    }
  }

  private GgufTypes() {}

  /** The type with this number; empty for one that was removed or never was. */
  static Optional<DType> of(int id) {
    return Optional.ofNullable(BY_ID.get(id));
  }

  /** The number of a type; empty when GGUF has none for it. */
  static Optional<Integer> id(DType type) {
    return Optional.ofNullable(IDS.get(type));
  }
}
