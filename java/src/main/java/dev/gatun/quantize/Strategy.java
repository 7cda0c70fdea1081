package dev.gatun.quantize;

import dev.gatun.GatunException;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** Which weights share a scale, as a way to name a format together with a number type. */
public enum Strategy {
  /** All of a weight. */
  PER_TENSOR,
  /** One output channel: a row. */
  PER_CHANNEL,
  /** A group of consecutive weights of a row. */
  PER_GROUP,
  /** A run of the flattened weight, or a block that carries its own scale. */
  PER_BLOCK;

  /** Formats by number type and strategy; the first strategy of a type is its usual one. */
  private static final Map<String, Map<Strategy, String>> FORMATS = new LinkedHashMap<>();

  static {
    add("int8", PER_CHANNEL, "qint8", PER_TENSOR, "comfy-int8", PER_BLOCK, "Q8_0");
    add("int4", PER_GROUP, "qint4", PER_BLOCK, "Q4_0");
    add("int2", PER_GROUP, "qint2");
    add(
        "fp8",
        PER_TENSOR,
        "float8_e4m3fn",
        PER_CHANNEL,
        "qfloat8_e4m3fn",
        PER_BLOCK,
        "comfy-mxfp8");
    add("float8_e5m2", PER_TENSOR, "float8_e5m2", PER_CHANNEL, "qfloat8_e5m2");
    add("nf4", PER_BLOCK, "nf4");
    add("fp4", PER_BLOCK, "fp4");
    add("nvfp4", PER_GROUP, "comfy-nvfp4");
  }

  private static void add(String type, Object... strategiesAndFormats) {
    Map<Strategy, String> formats = new LinkedHashMap<>();
    for (int i = 0; i < strategiesAndFormats.length; i += 2) {
      formats.put((Strategy) strategiesAndFormats[i], (String) strategiesAndFormats[i + 1]);
    }
    FORMATS.put(type, formats);
  }

  /** {@code per_tensor}. */
  public String text() {
    return name().toLowerCase(Locale.ROOT);
  }

  /**
   * The strategy of a name.
   *
   * @throws GatunException when there is none
   */
  public static Strategy of(String name) {
    return Stream.of(values())
        .filter(strategy -> strategy.text().equals(name))
        .findFirst()
        .orElseThrow(
            () ->
                new GatunException(
                    "strategy: found '"
                        + name
                        + "', expected one of "
                        + Stream.of(values())
                            .map(Strategy::text)
                            .collect(Collectors.joining(", "))));
  }

  /**
   * The format of a number type with a strategy.
   *
   * @param type {@code int8}, {@code int4}, {@code fp8}, {@code nf4} …
   * @param strategy empty: the type's usual one
   * @return one of {@link Quantizer#formats()}
   * @throws GatunException when the type is unknown or is not written with this strategy
   */
  public static String format(String type, Optional<Strategy> strategy) {
    Map<Strategy, String> formats = FORMATS.get(type);
    if (formats == null) {
      throw new GatunException(
          "dtype: found '" + type + "', expected one of " + String.join(", ", FORMATS.keySet()));
    }
    if (strategy.isEmpty()) {
      return formats.values().iterator().next();
    }
    String format = formats.get(strategy.get());
    if (format == null) {
      throw new GatunException(
          "strategy: found '"
              + strategy.get().text()
              + "' for "
              + type
              + ", expected one of "
              + formats.keySet().stream().map(Strategy::text).collect(Collectors.joining(", ")));
    }
    return format;
  }
}
