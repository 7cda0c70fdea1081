package dev.gatun.bench.demo;

import dev.gatun.Compute;
import dev.gatun.Encoding;
import java.util.List;
import java.util.Optional;

/** The formats that the demo compares, and how near to the original each must stay. */
enum Format {
  F32("f32", Optional.empty(), Encoding.F32, 0.99999, List.of(Compute.F32)),
  INT8(
      "int8",
      Optional.of("qint8"),
      Encoding.I8,
      0.99,
      List.of(Compute.F32, Compute.BF16, Compute.I8)),
  FP8(
      "fp8",
      Optional.of("float8_e4m3fn"),
      Encoding.F8_E4M3,
      0.99,
      List.of(Compute.F32, Compute.BF16)),
  NF4(
      "nf4",
      Optional.of("nf4"),
      Encoding.NF4,
      0.95,
      List.of(Compute.F32, Compute.BF16, Compute.I8));

  private final String label;
  private final Optional<String> writer;
  private final Encoding encoding;
  private final double bar;
  private final List<Compute> computes;

  Format(
      String label,
      Optional<String> writer,
      Encoding encoding,
      double bar,
      List<Compute> computes) {
    this.label = label;
    this.writer = writer;
    this.encoding = encoding;
    this.bar = bar;
    this.computes = computes;
  }

  /** The name in tables and JSON. */
  String label() {
    return label;
  }

  /** What {@code gatun quantize --format} calls it; empty for the weights as they are. */
  Optional<String> writer() {
    return writer;
  }

  /** Of the codes. */
  Encoding encoding() {
    return encoding;
  }

  /** The least cosine that a sentence's embedding may have with the original's. */
  double bar() {
    return bar;
  }

  /** Compute types that may be tried; the fastest within the bar is taken. */
  List<Compute> computes() {
    return computes;
  }
}
