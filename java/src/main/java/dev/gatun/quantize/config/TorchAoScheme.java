package dev.gatun.quantize.config;

import dev.gatun.GatunException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What torchao does to weights and activations: the functions behind the shorthands that diffusers
 * took until March 2026, and the classes that replaced them.
 *
 * @param function torchao's function, in its long spelling: {@code int4_weight_only}
 * @param className the class that replaced it; empty: there is none
 * @param settings the arguments that it takes
 * @param format the name under which {@code gatun quantize} writes it, before any group size;
 *     empty: only torchao's own pickles hold such weights
 */
record TorchAoScheme(
    String function, Optional<String> className, Set<String> settings, Optional<String> format) {

  private static final Map<String, TorchAoScheme> BY_NAME = new LinkedHashMap<>();
  private static final Map<String, TorchAoScheme> BY_CLASS = new LinkedHashMap<>();
  private static final Pattern FPX_EAWB = Pattern.compile("fp([3-7])_e([1-5])m([1-5])");

  static {
    Set<String> int4 =
        Set.of(
            "group_size",
            "inner_k_tiles",
            "layout",
            "use_hqq",
            "zero_point_domain",
            "preserve_zero",
            "set_inductor_config",
            "int4_packing_format",
            "int4_choose_qparams_algorithm",
            "version");
    Set<String> int8 = Set.of("group_size", "granularity", "set_inductor_config", "version");
    Set<String> int8Dynamic =
        Set.of(
            "layout",
            "act_mapping_type",
            "weight_only_decode",
            "granularity",
            "set_inductor_config",
            "version");
    Set<String> int8Int4 = Set.of("group_size", "layout", "mapping_type", "act_mapping_type");
    Set<String> float8 = Set.of("weight_dtype", "set_inductor_config", "version", "granularity");
    Set<String> float8Dynamic =
        Set.of(
            "activation_dtype",
            "weight_dtype",
            "granularity",
            "mm_config",
            "activation_value_lb",
            "activation_value_ub",
            "kernel_preference",
            "packing_format",
            "set_inductor_config",
            "version");
    add("int4_weight_only", "Int4WeightOnlyConfig", int4, "int4wo", "int4wo");
    add(
        "int8_dynamic_activation_int4_weight",
        "Int8DynamicActivationInt4WeightConfig",
        int8Int4,
        "",
        "int4dq");
    add("int8_weight_only", "Int8WeightOnlyConfig", int8, "int8wo", "int8wo");
    add(
        "int8_dynamic_activation_int8_weight",
        "Int8DynamicActivationInt8WeightConfig",
        int8Dynamic,
        "int8dq",
        "int8dq");
    add("float8_weight_only", "Float8WeightOnlyConfig", float8, "float8wo_e4m3", "float8wo_e4m3");
    // Its default was e5m2, not the function's e4m3.
    variant("float8_weight_only", "float8wo_e5m2", "float8wo", "float8wo_e5m2");
    add(
        "float8_dynamic_activation_float8_weight",
        "Float8DynamicActivationFloat8WeightConfig",
        float8Dynamic,
        "float8dq_e4m3_tensor",
        "float8dq",
        "float8dq_e4m3",
        "float8dq_e4m3_tensor");
    variant("float8_dynamic_activation_float8_weight", "float8dq_e4m3_row", "float8dq_e4m3_row");
    add(
        "float8_static_activation_float8_weight",
        "",
        Set.of("scale", "activation_dtype", "weight_dtype", "granularity", "mm_config"),
        "");
    add(
        "uintx_weight_only",
        "",
        Set.of("dtype", "group_size", "pack_dim", "use_hqq"),
        "",
        "uint1wo",
        "uint2wo",
        "uint3wo",
        "uint4wo",
        "uint5wo",
        "uint6wo",
        "uint7wo");
    add("fpx_weight_only", "", Set.of("ebits", "mbits"), "", "fp3", "fp4", "fp5", "fp6", "fp7");
    add(
        "intx_weight_only",
        "IntxWeightOnlyConfig",
        Set.of(
            "weight_dtype",
            "granularity",
            "mapping_type",
            "scale_dtype",
            "intx_packing_format",
            "intx_choose_qparams_algorithm",
            "layout",
            "version"),
        "intx");
  }

  private static void add(
      String function, String className, Set<String> settings, String format, String... names) {
    TorchAoScheme scheme =
        new TorchAoScheme(
            function,
            Optional.of(className).filter(name -> !name.isEmpty()),
            settings,
            Optional.of(format).filter(name -> !name.isEmpty()));
    BY_NAME.put(function, scheme);
    scheme.className.ifPresent(name -> BY_CLASS.put(name, scheme));
    for (String name : names) {
      BY_NAME.put(name, scheme);
    }
  }

  /** Shorthands of a function that write something else than the function itself. */
  private static void variant(String function, String format, String... names) {
    TorchAoScheme base = BY_NAME.get(function);
    for (String name : names) {
      BY_NAME.put(
          name, new TorchAoScheme(function, base.className, base.settings, Optional.of(format)));
    }
  }

  /**
   * What a shorthand or a function's name stands for.
   *
   * @throws GatunException when it stands for nothing
   */
  static TorchAoScheme ofName(String name) {
    TorchAoScheme scheme = BY_NAME.get(name);
    if (scheme != null) {
      return scheme;
    }
    Matcher fpx = FPX_EAWB.matcher(name);
    if (fpx.matches() && digit(fpx, 1) == digit(fpx, 2) + digit(fpx, 3) + 1) {
      return BY_NAME.get("fpx_weight_only");
    }
    throw new GatunException(
        "TorchAoConfig: quant_type: found '"
            + name
            + "', expected one of "
            + String.join(", ", new TreeSet<>(BY_NAME.keySet()))
            + ", fpX_eAmB with X = A + B + 1, or a class");
  }

  private static int digit(Matcher matcher, int group) {
    return Integer.parseInt(matcher.group(group));
  }

  /**
   * What a class stands for.
   *
   * @throws GatunException when it stands for nothing
   */
  static TorchAoScheme ofClass(String name) {
    TorchAoScheme scheme = BY_CLASS.get(name);
    if (scheme == null) {
      throw new GatunException(
          "TorchAoConfig: quant_type: _type: found '"
              + name
              + "', expected one of "
              + String.join(", ", BY_CLASS.keySet()));
    }
    return scheme;
  }

  /** Every shorthand and function. */
  static List<String> names() {
    return List.copyOf(BY_NAME.keySet());
  }
}
