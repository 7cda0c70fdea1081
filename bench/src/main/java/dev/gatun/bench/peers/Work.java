package dev.gatun.bench.peers;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import dev.gatun.bench.Probe;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/** What is compared: a kind of weight and what it is multiplied in. */
enum Work {
  /** Unsigned nibbles with the zero point 8, one scale per 32. */
  INT4_G32(
      Encoding.U4,
      32,
      8,
      Compute.I8,
      Probe.Peak.I8,
      "4-bit integers, a scale per 32, int8 multiply"),
  /** The same, one scale per 128. */
  INT4_G128(
      Encoding.U4,
      128,
      8,
      Compute.I8,
      Probe.Peak.I8,
      "4-bit integers, a scale per 128, int8 multiply"),
  /** Unsigned bytes with the zero point 128, one scale per 32. */
  INT8_G32(
      Encoding.U8,
      32,
      128,
      Compute.I8,
      Probe.Peak.I8,
      "8-bit integers, a scale per 32, int8 multiply"),
  /** Bytes, one scale a row. */
  INT8_ROW(
      Encoding.I8, 0, 0, Compute.I8, Probe.Peak.I8, "8-bit integers, a scale a row, int8 multiply"),
  /** bitsandbytes' NF4 with blocks of 64. */
  NF4(Encoding.NF4, 64, 0, Compute.BF16, Probe.Peak.BF16, "NF4, a scale per 64, bfloat16 multiply"),
  /** 8-bit floats, one scale for all. */
  FP8(
      Encoding.F8_E4M3,
      -1,
      0,
      Compute.BF16,
      Probe.Peak.BF16,
      "FP8 e4m3, one scale, bfloat16 multiply"),
  /** The first one's weights in bfloat16. */
  INT4_G32_BF16(
      Encoding.U4,
      32,
      8,
      Compute.BF16,
      Probe.Peak.BF16,
      "4-bit integers, a scale per 32, bfloat16 multiply"),
  /** GGUF's Q4_0, x quantized per row. */
  Q4_0_ROW(Encoding.Q4_0, Compute.I8),
  /** GGUF's Q4_0, x quantized per 32 as ggml does; likewise those that follow. */
  Q4_0(Encoding.Q4_0, Compute.I8_BLOCK),
  /** GGUF's Q4_K. */
  Q4_K(Encoding.Q4_K, Compute.I8_BLOCK),
  /** GGUF's Q6_K. */
  Q6_K(Encoding.Q6_K, Compute.I8_BLOCK),
  /** GGUF's Q8_0. */
  Q8_0(Encoding.Q8_0, Compute.I8_BLOCK),
  /** GGUF's IQ4_NL. */
  IQ4_NL(Encoding.IQ4_NL, Compute.I8_BLOCK),
  /** GGUF's MXFP4. */
  MXFP4(Encoding.MXFP4, Compute.I8_BLOCK),
  /** GGUF's NVFP4. */
  NVFP4(Encoding.NVFP4, Compute.I8_BLOCK),
  /** Plain bfloat16. */
  BF16(Encoding.BF16, -1, 0, Compute.BF16, Probe.Peak.BF16, "bfloat16"),
  /** Plain floats. */
  F32(Encoding.F32, -1, 0, Compute.F32, Probe.Peak.F32, "floats");

  private final Encoding encoding;
  private final int group;
  private final int zeroPoint;
  private final Compute compute;
  private final Probe.Peak peak;
  private final String description;

  Work(
      Encoding encoding,
      int group,
      int zeroPoint,
      Compute compute,
      Probe.Peak peak,
      String description) {
    this.encoding = encoding;
    this.group = group;
    this.zeroPoint = zeroPoint;
    this.compute = compute;
    this.peak = peak;
    this.description = description;
  }

  /** Blocks that have their scales in them. */
  Work(Encoding block, Compute compute) {
    this(
        block,
        block.blockElements(),
        0,
        compute,
        Probe.Peak.I8,
        block + (compute == Compute.I8 ? ", int8 multiply" : ", int8 multiply, x per 32"));
  }

  /** The name in JSON and on the command line. */
  String label() {
    return name().toLowerCase(Locale.ROOT).replace('_', '-');
  }

  /** Of all. */
  static List<String> labels() {
    return Arrays.stream(values()).map(Work::label).toList();
  }

  Encoding encoding() {
    return encoding;
  }

  /**
   * Weights of a row that share a scale or, with scales of their own in it, a block; 0: all of the
   * row; -1: all of the matrix.
   */
  int group() {
    return group;
  }

  int zeroPoint() {
    return zeroPoint;
  }

  Compute compute() {
    return compute;
  }

  /** The machine's limit for the multiply. */
  Probe.Peak peak() {
    return peak;
  }

  String description() {
    return description;
  }
}
