package dev.gatun.quantize;

/**
 * What quantization did to one layer.
 *
 * @param layer plain name
 * @param rows N
 * @param columns K
 * @param bytesBefore of the weight
 * @param bytesAfter of all tensors that stand for it
 * @param relativeError ‖W' − W‖ / ‖W‖ in the Frobenius norm; 0 for a weight of zeros that stays so
 * @param snrDb 20 · log10(‖W‖ / ‖W' − W‖); infinite when they are equal
 * @param maxError largest |W' − W|
 * @param how the weight got its new codes
 * @param format that it has now, one of {@link Quantizer#formats()}
 */
public record LayerReport(
    String layer,
    long rows,
    long columns,
    long bytesBefore,
    long bytesAfter,
    double relativeError,
    double snrDb,
    double maxError,
    How how,
    String format) {
  /** How the weight got its new codes. */
  public enum How {
    /** From plain floats. */
    QUANTIZED,
    /** The codes and scales that it had, laid out anew, and every number the same. */
    LOSSLESS,
    /**
     * The codes and scales that it had, laid out anew; the format's library rounds its products
     * otherwise, and the error is that.
     */
    RELAID,
    /** Dequantized and quantized again. */
    REQUANTIZED,
    /** Dequantized only: the format cannot hold a weight of this shape. */
    DEQUANTIZED
  }
}
