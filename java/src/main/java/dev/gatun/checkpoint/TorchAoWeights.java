package dev.gatun.checkpoint;

import dev.gatun.Encoding;
import dev.gatun.GatunException;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * How one of torchao's configurations quantizes weights, and how its metadata says so.
 *
 * @param help one line
 * @param encoding of the codes
 * @param group weights that share a scale; 0: a row; -1: the whole weight
 * @param dynamic whether activations are quantized too, when the layer runs
 * @param bits of a code
 */
record TorchAoWeights(
    Type type, String help, Encoding encoding, long group, boolean dynamic, int bits) {
  /** The tensor subclass. */
  enum Type {
    INT4_TILES("Int4TilePackedTo4dTensor"),
    INT4("Int4Tensor"),
    INT8("Int8Tensor"),
    /** Integers of few bits, each in a byte; scales are of the weight's own type. */
    INTX("IntxUnpackedToInt8Tensor"),
    FLOAT8("Float8Tensor");

    private final String className;

    Type(String className) {
      this.className = className;
    }

    String className() {
      return className;
    }
  }

  private static final long PER_ROW = 0;
  private static final long PER_TENSOR = -1;
  private static final String PREFIX = "torchao-";
  private static final Map<String, TorchAoWeights> ALL = new LinkedHashMap<>();

  /** What configurations alone ask for: bits, and weights that share a scale if not a row does. */
  private static final Pattern INTX = Pattern.compile("torchao-intx([1-8])(?:-g([1-9]\\d{0,5}))?");

  static {
    for (long group : List.of(128L, 32L, 64L, 256L)) {
      String suffix = group == 128 ? "" : "-g" + group;
      String each = "4-bit integers, one scale and one offset per " + group + " weights";
      add(Type.INT4_TILES, "int4wo" + suffix, each + ", in tiles", Encoding.U4, group, false);
      add(Type.INT4, "int4wo-plain" + suffix, each + ", in rows", Encoding.I4, group, false);
    }
    add(Type.INT8, "int8wo", "8-bit integers, one scale per row", Encoding.I8, PER_ROW, false);
    add(
        Type.INT8,
        "int8wo-tensor",
        "8-bit integers, one scale per tensor",
        Encoding.I8,
        PER_TENSOR,
        false);
    for (long group : List.of(32L, 64L, 128L)) {
      String each = "8-bit integers, one scale per " + group + " weights";
      add(Type.INT8, "int8wo-g" + group, each, Encoding.I8, group, false);
    }
    String dynamic = ", for quantized activations";
    add(
        Type.INT8,
        "int8dq",
        "8-bit integers, one scale per row" + dynamic,
        Encoding.I8,
        PER_ROW,
        true);
    for (Encoding encoding : List.of(Encoding.F8_E4M3, Encoding.F8_E5M2)) {
      String kind = encoding == Encoding.F8_E4M3 ? "e4m3" : "e5m2";
      String row = "8-bit floats " + kind + ", one scale per row";
      String tensor = "8-bit floats " + kind + ", one scale per tensor";
      add(Type.FLOAT8, "float8wo_" + kind, row, encoding, PER_ROW, false);
      add(Type.FLOAT8, "float8wo_" + kind + "_tensor", tensor, encoding, PER_TENSOR, false);
      add(Type.FLOAT8, "float8dq_" + kind + "_row", row + dynamic, encoding, PER_ROW, true);
      add(
          Type.FLOAT8,
          "float8dq_" + kind + "_tensor",
          tensor + dynamic,
          encoding,
          PER_TENSOR,
          true);
    }
  }

  private static void add(
      Type type, String name, String help, Encoding encoding, long group, boolean dynamic) {
    ALL.put(
        PREFIX + name,
        new TorchAoWeights(type, "torchao: " + help, encoding, group, dynamic, encoding.bits()));
  }

  /** What {@code gatun quantize --format} offers, each with one line of help. */
  static Map<String, String> formats() {
    Map<String, String> formats = new LinkedHashMap<>();
    ALL.forEach((name, scheme) -> formats.put(name, scheme.help));
    return formats;
  }

  /** The scheme that is written under a name. */
  static TorchAoWeights of(String format) {
    Matcher intx = INTX.matcher(format);
    if (intx.matches()) {
      long group = intx.group(2) == null ? PER_ROW : Long.parseLong(intx.group(2));
      int bits = Integer.parseInt(intx.group(1));
      return new TorchAoWeights(Type.INTX, format, Encoding.I8, group, false, bits);
    }
    TorchAoWeights scheme = ALL.get(format);
    if (scheme == null) {
      throw new GatunException(
          "no format '" + format + "' in torchao, expected one of " + ALL.keySet());
    }
    return scheme;
  }

  /** Whether {@link #of} knows a name. */
  static boolean isKnown(String format) {
    return ALL.containsKey(format) || INTX.matcher(format).matches();
  }

  /** The smallest code of an integer. */
  int smallest() {
    return -(1 << (bits - 1));
  }

  /** Half of what lies between the smallest code and the largest one. */
  float halfRange() {
    return ((1 << bits) - 1) / 2f;
  }

  /** Rows and columns that share a scale. */
  List<Long> block(long n, long k) {
    return group == PER_TENSOR ? List.of(n, k) : List.of(1L, group == PER_ROW ? k : group);
  }

  /** The entry of the metadata: the class, its attributes and the names of its data. */
  String description(LayerWriter.Written layer) {
    List<Long> shape = layer.shape();
    String block = "\"block_size\": " + block(shape.get(0), shape.get(1));
    String attributes =
        switch (type) {
          case INT4_TILES -> block + ", \"shape\": " + shape;
          case INT4 ->
              "\"activation_dtype\": " + dtype("bfloat16") + ", " + block + ", \"shape\": " + shape;
          case INT8 ->
              "\"act_quant_kwargs\": "
                  + int8Activations()
                  + ", \"reduce_range\": false, "
                  + block
                  + ", \"dtype\": "
                  + dtype(layer);
          case INTX ->
              "\"target_dtype\": "
                  + dtype("int" + bits)
                  + ", "
                  + block
                  + ", \"dtype\": "
                  + dtype(layer)
                  + ", \"activation_quantization\": null";
          case FLOAT8 ->
              block
                  + ", \"mm_config\": "
                  + (dynamic
                      ? entry(
                          "Float8MMConfig",
                          "{\"emulate\": false, \"use_fast_accum\": true, \"pad_inner_dim\": false}")
                      : "null")
                  + ", \"act_quant_kwargs\": "
                  + float8Activations()
                  + ", \"kernel_preference\": "
                  + entry("KernelPreference", "\"AUTO\"")
                  + ", \"dtype\": "
                  + dtype(layer);
        };
    String data =
        switch (type) {
          case INT4_TILES -> "\"qdata\", \"scale_and_zero\"";
          case INT4, INTX -> "\"qdata\", \"scale\", \"zero_point\"";
          case INT8 -> "\"zero_point\", \"qdata\", \"scale\"";
          case FLOAT8 -> "\"qdata\", \"scale\"";
        };
    return "{\"_type\": \""
        + type.className
        + "\", \"_data\": {"
        + attributes
        + "}, \"_tensor_data_names\": ["
        + data
        + "]}";
  }

  private String int8Activations() {
    return !dynamic
        ? "null"
        : entry(
            "QuantizeTensorToInt8Kwargs",
            "{\"granularity\": "
                + granularity()
                + ", \"mapping_type\": "
                + entry("MappingType", "\"SYMMETRIC\"")
                + ", \"reduce_range\": false}");
  }

  /** Activations are e4m3 whatever the weights are. */
  private String float8Activations() {
    return !dynamic
        ? "null"
        : entry(
            "QuantizeTensorToFloat8Kwargs",
            "{\"float8_dtype\": "
                + dtype("float8_e4m3fn")
                + ", \"granularity\": "
                + granularity()
                + ", \"mm_config\": null, \"hp_value_lb\": null, \"hp_value_ub\": null,"
                + " \"kernel_preference\": "
                + entry("KernelPreference", "\"AUTO\"")
                + "}");
  }

  private String granularity() {
    return group == PER_TENSOR ? entry("PerTensor", "{}") : entry("PerRow", "{\"dim\": -1}");
  }

  private static String dtype(LayerWriter.Written layer) {
    return dtype(
        switch (layer.dtype()) {
          case F16 -> "float16";
          case BF16 -> "bfloat16";
          default -> "float32";
        });
  }

  private static String dtype(String name) {
    return entry("torch.dtype", '"' + name + '"');
  }

  private static String entry(String type, String data) {
    return "{\"_type\": \"" + type + "\", \"_data\": " + data + "}";
  }
}
