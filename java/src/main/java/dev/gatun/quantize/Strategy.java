package dev.gatun.quantize;

import dev.gatun.GatunException;
import dev.gatun.checkpoint.PlainFloats;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
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

  /** Other names of types. */
  private static final Map<String, String> SAME = new LinkedHashMap<>();

  private static final Map<String, Strategy> SHORT =
      Map.of("group", PER_GROUP, "block", PER_BLOCK, "per_row", PER_CHANNEL);

  static {
    add(
        "int8",
        PER_CHANNEL,
        "qint8",
        PER_TENSOR,
        "comfy-int8",
        PER_GROUP,
        "torchao-int8wo-g128",
        PER_BLOCK,
        "gguf-q8_0");
    add("int4", PER_GROUP, "qint4", PER_CHANNEL, "comfy-convrot_w4a4", PER_BLOCK, "gguf-q4_0");
    add("int2", PER_GROUP, "qint2");
    add(
        "float8",
        PER_TENSOR,
        "float8_e4m3fn",
        PER_CHANNEL,
        "qfloat8_e4m3fn",
        PER_BLOCK,
        "comfy-mxfp8");
    add("float8_e5m2", PER_TENSOR, "float8_e5m2", PER_CHANNEL, "qfloat8_e5m2");
    add("float8_e4m3fnuz", PER_CHANNEL, "qfloat8_e4m3fnuz");
    add("nf4", PER_BLOCK, "nf4");
    add("fp4", PER_BLOCK, "fp4");
    add("nvfp4", PER_BLOCK, "comfy-nvfp4");
    add("mxfp8", PER_BLOCK, "comfy-mxfp8");
    add("mxfp4", PER_BLOCK, "gguf-mxfp4");
    SAME.put("fp8", "float8");
    SAME.put("float8_e4m3fn", "float8");
  }

  /** Types that have no scales, so no strategy either: each is the name of its format. */
  private static final List<String> UNSCALED =
      List.of("float32", "float16", "bfloat16", PlainFloats.ORIGINAL);

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

  /** Every number type that can be written. */
  public static List<String> types() {
    return Stream.of(FORMATS.keySet(), SAME.keySet(), UNSCALED)
        .flatMap(Collection::stream)
        .toList();
  }

  /**
   * The strategy of a name: {@code per_group} or, shorter, {@code group}.
   *
   * @throws GatunException when there is none
   */
  public static Strategy of(String name) {
    if (SHORT.containsKey(name)) {
      return SHORT.get(name);
    }
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
    if (UNSCALED.contains(type)) {
      if (strategy.isPresent()) {
        throw new GatunException(
            "strategy: found '"
                + strategy.get().text()
                + "' for "
                + type
                + ", expected none: it has no scales");
      }
      return type;
    }
    Map<Strategy, String> formats = FORMATS.get(SAME.getOrDefault(type, type));
    if (formats == null) {
      throw new GatunException(
          "dtype: found '" + type + "', expected one of " + String.join(", ", types()));
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
              + ", which no layout that is written holds, expected one of "
              + formats.entrySet().stream()
                  .map(entry -> entry.getKey().text() + " (" + entry.getValue() + ")")
                  .collect(Collectors.joining(", ")));
    }
    return format;
  }
}
