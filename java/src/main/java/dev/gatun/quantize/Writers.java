package dev.gatun.quantize;

import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.kernel.Scaling;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ConcurrentHashMap;

/** The writers of one run, one a format. */
final class Writers {
  private final Map<String, LayerWriter> writers = new ConcurrentHashMap<>();

  /**
   * The writer of a format.
   *
   * @throws dev.gatun.GatunException when there is none of that name
   */
  LayerWriter of(String format) {
    return writers.computeIfAbsent(format, name -> Quantizer.family(name).writer(name));
  }

  /** How scales are chosen; a format that refuses the plan's way does it its own way. */
  Scaling scaling(String format, Scaling planned) {
    return of(format).refuses(planned).isPresent() ? Scaling.DEFAULT : planned;
  }

  /** What the input of a layer of floats is multiplied by, where the format has no place for it. */
  Optional<Tensor> multiplierOfFloats(Checkpoint source, LayerWork.Fresh item) {
    String name = of(item.format()).inputMultiplier(item.layer()).orElse("");
    return source.inputMultiplier(item.layer()).filter(m -> !m.name().equals(name));
  }
}
