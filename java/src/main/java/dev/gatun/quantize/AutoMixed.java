package dev.gatun.quantize;

import dev.gatun.GatunException;
import dev.gatun.Tensor;
import dev.gatun.checkpoint.Checkpoint;
import dev.gatun.checkpoint.LayerWriter;
import dev.gatun.checkpoint.PlainFloats;
import dev.gatun.kernel.Backend;
import dev.gatun.kernel.Scaling;
import java.lang.foreign.Arena;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Finds the layers that lose most: quantizes every one to each of some formats, measures the error,
 * and chooses.
 *
 * <p>With a least signal-to-noise ratio, a layer gets the format of the fewest bits that keeps it,
 * or stays as it is. With a largest number of bits, every layer begins with the fewest, and bits
 * are given one step at a time to the layer whose relative squared error falls most for them, until
 * no step fits.
 */
public final class AutoMixed {
  /** Formats that one library reads side by side in one file: quanto's, and floats. */
  public static final List<String> CANDIDATES =
      List.of("qint2", "qint4", "qint8", PlainFloats.ORIGINAL);

  /**
   * What a format makes of a layer.
   *
   * @param bits a weight, scales included
   * @param error ‖W' − W‖² / ‖W‖²
   * @param snrDb the same in dB; infinite without error
   */
  public record Measured(String format, double bits, double error, double snrDb) {}

  /**
   * What a layer gets.
   *
   * @param measured every candidate that takes the layer, by rising bits
   * @param why in one clause
   */
  public record Choice(
      String layer, long weights, Measured chosen, List<Measured> measured, String why) {}

  /**
   * Every layer's choice.
   *
   * @param bits a weight on the average
   */
  public record Result(List<Choice> choices, double bits) {
    /** What was chosen, to be carried out. */
    public QuantizePlan plan(Scaling scaling) {
      Map<String, String> formats = new LinkedHashMap<>();
      choices.forEach(choice -> formats.put(choice.layer, choice.chosen.format));
      QuantizePlan plan = QuantizePlan.of(formats);
      return scaling.isDefault() ? plan : new Plans.Tolerant(plan, scaling);
    }
  }

  private final Checkpoint source;
  private final List<String> candidates;
  private final Scaling scaling;
  private final Backend backend;

  private AutoMixed(Checkpoint source, List<String> candidates, Scaling scaling, Backend backend) {
    this.source = source;
    this.candidates = candidates;
    this.scaling = scaling;
    this.backend = backend;
  }

  /**
   * Chooses a format for each layer.
   *
   * @param filter which layers
   * @param candidates formats to choose from, some of {@link Quantizer#formats()}
   * @param scaling how scales are chosen where a candidate takes it
   * @param threads how many layers are measured at once
   * @throws GatunException when there is no layer, a candidate is unknown, or even the fewest bits
   *     are more than the limit
   */
  public static Result choose(
      Checkpoint source,
      NameFilter filter,
      List<String> candidates,
      MixedLimit limit,
      Scaling scaling,
      Backend backend,
      int threads,
      ProgressListener progress) {
    candidates.forEach(Quantizer::family);
    AutoMixed mixed = new AutoMixed(source, candidates, scaling, backend);
    List<Tensor> weights =
        source.plain().values().stream()
            .filter(Quantizer::isCandidate)
            .filter(tensor -> filter.accepts(Quantizer.layerOf(tensor)))
            .toList();
    progress.start(weights.stream().mapToLong(t -> t.data().byteSize()).sum());
    List<Layer> layers = mixed.measureAll(weights, threads, progress);
    if (layers.isEmpty()) {
      throw new GatunException(
          source.path()
              + ": found no weight to choose a format for, expected two-dimensional float tensors"
              + " *.weight that the filters let through");
    }
    if (limit.minSnrDb().isPresent()) {
      layers.forEach(layer -> layer.chooseBySnr(limit.minSnrDb().getAsDouble()));
    } else {
      mixed.chooseByBits(layers, limit.maxBits().orElseThrow());
    }
    double bits = bits(layers);
    return new Result(layers.stream().map(Layer::choice).toList(), bits);
  }

  /** A layer while it is chosen for. */
  private static final class Layer {
    final String name;
    final long weights;
    final List<Measured> measured;
    int at;
    String why = "";

    Layer(String name, long weights, List<Measured> measured) {
      this.name = name;
      this.weights = weights;
      this.measured = measured;
    }

    Measured now() {
      return measured.get(at);
    }

    Choice choice() {
      return new Choice(name, weights, now(), measured, why);
    }

    void chooseBySnr(double least) {
      int best = 0;
      for (int i = 0; i < measured.size(); i++) {
        if (measured.get(i).snrDb >= least) {
          at = i;
          why =
              i == 0
                  ? text("%.1f dB with the fewest bits", now().snrDb)
                  : text(
                      "%.1f dB; %s gives %.1f dB only",
                      now().snrDb, measured.get(i - 1).format, measured.get(i - 1).snrDb);
          return;
        }
        best = measured.get(i).snrDb > measured.get(best).snrDb ? i : best;
      }
      at = best;
      why = text("no candidate reaches %.1f dB, this comes nearest with %.1f", least, now().snrDb);
    }
  }

  /** More bits for a layer. */
  private record Step(Layer layer, int to) {
    double bits() {
      return (layer.measured.get(to).bits - layer.now().bits) * layer.weights;
    }

    double gain() {
      return (layer.now().error - layer.measured.get(to).error) / bits();
    }
  }

  private void chooseByBits(List<Layer> layers, double most) {
    double weights = layers.stream().mapToDouble(layer -> layer.weights).sum();
    double left = (most - bits(layers)) * weights;
    if (left < 0) {
      throw new GatunException(
          source.path()
              + ": max-bits: found "
              + most
              + ", expected at least "
              + text("%.3f", bits(layers))
              + ", the fewest of "
              + candidates);
    }
    while (true) {
      Step best = null;
      for (Layer layer : layers) {
        for (int to = layer.at + 1; to < layer.measured.size(); to++) {
          Step step = new Step(layer, to);
          boolean fits = step.bits() <= left && step.gain() > 0;
          if (fits && (best == null || step.gain() > best.gain())) {
            best = step;
          }
        }
      }
      if (best == null) {
        break;
      }
      left -= best.bits();
      Measured before = best.layer.now();
      Measured after = best.layer.measured.get(best.to);
      best.layer.why =
          text(
              "from %s up: %.1f dB become %.1f dB for %.2f bits",
              before.format, before.snrDb, after.snrDb, after.bits - before.bits);
      best.layer.at = best.to;
    }
    for (Layer layer : layers) {
      if (layer.why.isEmpty()) {
        layer.why =
            layer.at == layer.measured.size() - 1
                ? "nothing better among the candidates"
                : "other layers gain more from the bits that there are";
      }
    }
  }

  private static double bits(List<Layer> layers) {
    double bits = layers.stream().mapToDouble(layer -> layer.now().bits * layer.weights).sum();
    return bits / layers.stream().mapToDouble(layer -> layer.weights).sum();
  }

  private List<Layer> measureAll(List<Tensor> weights, int threads, ProgressListener progress) {
    List<Future<Layer>> running = new ArrayList<>();
    List<Layer> layers = new ArrayList<>();
    try (ExecutorService workers = Executors.newFixedThreadPool(threads)) {
      for (Tensor weight : weights) {
        running.add(workers.submit(() -> measure(weight)));
      }
      for (int i = 0; i < weights.size(); i++) {
        Layer layer = running.get(i).get();
        if (!layer.measured.isEmpty()) {
          layers.add(layer);
        }
        progress.advance(layer.name, weights.get(i).data().byteSize());
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new GatunException("interrupted", e);
    } catch (ExecutionException e) {
      running.forEach(future -> future.cancel(false));
      throw e.getCause() instanceof RuntimeException why
          ? why
          : new IllegalStateException(e.getCause());
    }
    return layers;
  }

  /** One candidate after the other; of equal bits the better one counts. */
  private Layer measure(Tensor weight) {
    String name = Quantizer.layerOf(weight);
    List<Measured> measured = new ArrayList<>();
    for (String format : candidates) {
      LayerWriter writer = Quantizer.family(format).writer(format);
      if (!writer.isQuantized(weight)) {
        continue;
      }
      Scaling how = writer.refuses(scaling).isEmpty() ? scaling : Scaling.DEFAULT;
      try (Arena arena = Arena.ofShared()) {
        Tensor again =
            new Tensor(
                weight.name(), weight.dtype(), weight.shape(), source.again(weight.data(), arena));
        LayerWriter.Quantized quantized = writer.quantize(name, again, how, backend, arena);
        ErrorMeter meter = ErrorMeter.measure(quantized.matrix(), again, backend);
        if (!meter.isFinite()) {
          throw new GatunException(
              source.path()
                  + ": tensor '"
                  + weight.name()
                  + "': found NaN or infinity, expected finite numbers");
        }
        long bytes = quantized.tensors().stream().mapToLong(t -> t.data().byteSize()).sum();
        double error = meter.noise() == 0 ? 0 : meter.noise() / meter.signal();
        measured.add(new Measured(format, 8.0 * bytes / weight.elements(), error, meter.snrDb()));
      }
    }
    measured.sort(Comparator.comparingDouble(Measured::bits).thenComparingDouble(Measured::error));
    return new Layer(name, weight.elements(), measured);
  }

  private static String text(String format, Object... values) {
    return String.format(Locale.ROOT, format, values);
  }
}
