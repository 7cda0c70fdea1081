package dev.gatun.checkpoint;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/**
 * bitsandbytes' signed 8-bit dynamic map: 256 ascending values in which nested scales are stored.
 * The values come from the library itself, whose last bits depend on how it was built; {@link
 * #code} is its CUDA kernel's search.
 */
final class DynamicMap {
  /** The values by code. */
  static final float[] VALUES = load();

  private DynamicMap() {}

  /**
   * The code of a number scaled to -1..1: a search of seven steps from the middle, then the nearer
   * neighbour.
   */
  static int code(float x) {
    int pivot = 127;
    int upperPivot = 255;
    int lowerPivot = 0;
    float upper = 1f;
    float lower = -1f;
    float value = VALUES[pivot];
    for (int step = 64; step > 0; step >>= 1) {
      if (x > value) {
        lowerPivot = pivot;
        lower = value;
        pivot += step;
      } else {
        upperPivot = pivot;
        upper = value;
        pivot -= step;
      }
      value = VALUES[pivot];
    }
    upper = upperPivot == 255 ? VALUES[255] : upper;
    lower = lowerPivot == 0 ? VALUES[0] : lower;
    if (x > value) {
      return x > (upper + value) * 0.5f ? upperPivot : pivot;
    }
    return x < (lower + value) * 0.5f ? lowerPivot : pivot;
  }

  private static float[] load() {
    try (InputStream in = DynamicMap.class.getResourceAsStream("bitsandbytes_dynamic_map.f32")) {
      if (in == null) {
        throw new IllegalStateException("bitsandbytes_dynamic_map.f32 is missing from the library");
      }
      float[] values = new float[256];
      ByteBuffer.wrap(in.readAllBytes()).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
      return values;
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }
}
