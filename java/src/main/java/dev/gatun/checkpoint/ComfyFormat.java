package dev.gatun.checkpoint;

import java.util.Map;
import java.util.TreeMap;

/** What is written for ComfyUI: every entry of its QUANT_ALGOS, and the form before them. */
enum ComfyFormat {
  FLOAT8_E4M3FN("float8_e4m3fn", "float8_e4m3fn", "", "8-bit floats e4m3fn, one scale per tensor"),
  FLOAT8_E5M2("float8_e5m2", "float8_e5m2", "", "8-bit floats e5m2, one scale per tensor"),
  /** Legacy: no mark of each layer but one of the file. */
  SCALED_FP8("comfy-scaled_fp8", "", "", "legacy: 8-bit floats e4m3fn, scales named scale_weight"),
  INT8("comfy-int8", "int8_tensorwise", "", "int8_tensorwise: 8-bit integers, one scale"),
  INT8_ROW(
      "comfy-int8-row", "int8_tensorwise", "", "int8_tensorwise: 8-bit integers, a scale per row"),
  INT8_CONVROT(
      "comfy-int8-convrot",
      "int8_tensorwise",
      ", \"convrot\": true, \"convrot_groupsize\": 256",
      "int8_tensorwise: rotated, 8-bit integers, one scale per row"),
  MXFP8("comfy-mxfp8", "mxfp8", "", "8-bit floats, one power of two per 32 weights"),
  NVFP4("comfy-nvfp4", "nvfp4", "", "4-bit floats, one 8-bit float scale per 16 weights"),
  CONVROT_W4A4(
      "comfy-convrot_w4a4",
      "convrot_w4a4",
      ", \"convrot_groupsize\": 256",
      "rotated, 4-bit integers, one scale per row"),
  ASYM_W4A8_INT8(
      "comfy-asym_w4a8_int8",
      "asym_w4a8_int8",
      ", \"group_size\": 16, \"convrot_groupsize\": 256",
      "rotated, 4-bit codebook, a scale per 16 weights and row"),
  AWQ_W4A16(
      "comfy-awq_w4a16",
      "awq_w4a16",
      ", \"group_size\": 64",
      "4-bit integers, one scale and one offset per 64 weights");

  /** The size of the Hadamard matrix that rotated weights are multiplied by. */
  static final int ROTATION = 256;

  /** Weights of a row that share a relative scale in {@link #ASYM_W4A8_INT8}. */
  static final int CODEBOOK_GROUP = 16;

  /** Weights of a row that share a scale in {@link #AWQ_W4A16}. */
  static final int AWQ_GROUP = 64;

  private final String text;
  private final String algorithm;
  private final String settings;
  private final String help;

  ComfyFormat(String text, String algorithm, String settings, String help) {
    this.text = text;
    this.algorithm = algorithm;
    this.settings = settings;
    this.help = "ComfyUI: " + help;
  }

  /** What {@code gatun quantize --format} offers: each name with one line of help. */
  static Map<String, String> all() {
    Map<String, String> all = new TreeMap<>();
    for (ComfyFormat format : values()) {
      all.put(format.text, format.help);
    }
    return all;
  }

  /** By the name that {@code --format} has. */
  static ComfyFormat named(String text) {
    for (ComfyFormat format : values()) {
      if (format.text.equals(text)) {
        return format;
      }
    }
    throw new IllegalArgumentException("no format " + text);
  }

  /** The layer's mark as ComfyUI writes it. */
  String mark() {
    return "{\"format\": \"" + algorithm + "\"" + settings + "}";
  }

  /**
   * Whether each layer is marked by a tensor, as ComfyUI itself saves them. The metadata marks
   * {@link #FLOAT8_E4M3FN}, which older versions read too.
   */
  boolean isMarkedByTensor() {
    return this != SCALED_FP8 && this != FLOAT8_E4M3FN;
  }

  /** The type of the codes. */
  DType codes() {
    return switch (this) {
      case FLOAT8_E4M3FN, SCALED_FP8, MXFP8 -> DType.F8_E4M3;
      case FLOAT8_E5M2 -> DType.F8_E5M2;
      case NVFP4 -> DType.U8;
      default -> DType.I8;
    };
  }

  /** What K must be a multiple of. */
  int columns() {
    return switch (this) {
      case INT8_CONVROT, CONVROT_W4A4, ASYM_W4A8_INT8 -> ROTATION;
      case AWQ_W4A16 -> AWQ_GROUP;
      default -> 1;
    };
  }
}
