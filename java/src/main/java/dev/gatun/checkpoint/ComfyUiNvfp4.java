package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.Tensor;
import dev.gatun.kernel.Backend;
import java.lang.foreign.Arena;

/** ComfyUI's {@code nvfp4}: what a weight's blocks share is one scale, absmax / (448 · 6). */
record ComfyUiNvfp4(String layer, long k, Encoding type) implements SharedScaleRows.Scheme {
  @Override
  public LayerWriter.Blank blank(long rows, float largest, Backend backend, Arena arena) {
    return new ComfyUiBlank(layer, rows, k, type, arena)
        .nvfp4(ComfyUiQuantizer.tensorScale(type, largest));
  }

  @Override
  public void fill(LayerWriter.Blank blank, Tensor rows, Backend backend) {
    ComfyUiQuantizer.nvfp4(blank, new WeightRows(rows, 0));
  }
}
