package dev.gatun.quantize;

/**
 * Draws reports; found through {@link java.util.ServiceLoader}. The library itself draws nothing
 * and needs no toolkit for it; the benchmark module has one.
 */
public interface ReportChart {
  /** The signal-to-noise ratio and the bits of every layer, as the bytes of a PNG file. */
  byte[] png(Report report);
}
