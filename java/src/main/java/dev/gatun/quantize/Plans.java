package dev.gatun.quantize;

import dev.gatun.ComputePlan;
import dev.gatun.Tensor;
import dev.gatun.kernel.Scaling;
import dev.gatun.quantize.config.QuantizationConfig;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;

/** The plans that there are. */
final class Plans {
  private Plans() {}

  record OneFormat(String name, NameFilter filter) implements QuantizePlan {
    @Override
    public String description() {
      return name + " " + filter;
    }

    @Override
    public Optional<String> format(String layer, Tensor weight) {
      return filter.accepts(layer) ? Optional.of(name) : Optional.empty();
    }
  }

  record Computed(QuantizePlan plan, ComputePlan computePlan) implements QuantizePlan {
    @Override
    public boolean convolutions() {
      return plan.convolutions();
    }

    @Override
    public String description() {
      return plan.description() + " computed in " + computePlan;
    }

    @Override
    public Optional<String> format(String layer, Tensor weight) {
      return plan.format(layer, weight);
    }

    @Override
    public Scaling scaling() {
      return plan.scaling();
    }

    @Override
    public boolean isTolerant() {
      return plan.isTolerant();
    }
  }

  record Scaled(QuantizePlan plan, Scaling scaling) implements QuantizePlan {
    @Override
    public boolean convolutions() {
      return plan.convolutions();
    }

    @Override
    public ComputePlan computePlan() {
      return plan.computePlan();
    }

    @Override
    public String description() {
      return plan.description() + " " + scaling;
    }

    @Override
    public Optional<String> format(String layer, Tensor weight) {
      return plan.format(layer, weight);
    }
  }

  /** Formats that do not choose scales in such a way do it their own way. */
  record Tolerant(QuantizePlan plan, Scaling scaling) implements QuantizePlan {
    @Override
    public boolean convolutions() {
      return plan.convolutions();
    }

    @Override
    public String description() {
      return plan.description() + " " + scaling + " where it can be";
    }

    @Override
    public Optional<String> format(String layer, Tensor weight) {
      return plan.format(layer, weight);
    }

    @Override
    public boolean isTolerant() {
      return true;
    }
  }

  record Convolved(QuantizePlan plan) implements QuantizePlan {
    @Override
    public String description() {
      return plan.description() + " with convolutions";
    }

    @Override
    public Optional<String> format(String layer, Tensor weight) {
      return plan.format(layer, weight);
    }

    @Override
    public boolean convolutions() {
      return true;
    }

    @Override
    public Scaling scaling() {
      return plan.scaling();
    }

    @Override
    public boolean isTolerant() {
      return plan.isTolerant();
    }

    @Override
    public ComputePlan computePlan() {
      return plan.computePlan();
    }
  }

  record ByName(Map<String, String> formats) implements QuantizePlan {
    @Override
    public String description() {
      return new TreeMap<>(formats).toString();
    }

    @Override
    public Optional<String> format(String layer, Tensor weight) {
      return Optional.ofNullable(formats.get(layer));
    }
  }

  record Configured(QuantizationConfig config, NameFilter filter) implements QuantizePlan {
    @Override
    public String description() {
      return config.toJson() + " " + filter;
    }

    @Override
    public Optional<String> format(String layer, Tensor weight) {
      return filter.narrows(layer) ? config.format(layer, weight) : Optional.empty();
    }

    @Override
    public Scaling scaling() {
      return config.scaling();
    }

    @Override
    public ComputePlan computePlan() {
      return ComputePlan.of(config.compute());
    }
  }
}
