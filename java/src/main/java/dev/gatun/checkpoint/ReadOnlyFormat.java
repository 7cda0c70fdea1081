package dev.gatun.checkpoint;

import dev.gatun.GatunException;
import java.util.Map;

/** A checkpoint format that is read and not written. */
interface ReadOnlyFormat extends CheckpointFormat {
  @Override
  default Map<String, String> writes() {
    return Map.of();
  }

  @Override
  default LayerWriter writer(String format) {
    throw new GatunException("no format '" + format + "' in " + name() + ", which is read only");
  }
}
