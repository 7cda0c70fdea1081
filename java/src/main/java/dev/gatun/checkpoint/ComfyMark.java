package dev.gatun.checkpoint;

import com.fasterxml.jackson.databind.JsonNode;

/**
 * What ComfyUI's mark of one layer says: the format, and settings that lie beside it or in {@code
 * params}.
 */
record ComfyMark(CheckpointSource source, String layer, String format, JsonNode json) {
  /** The entry is an object with {@code format}, or with some writers the bare name of it. */
  static ComfyMark of(CheckpointSource source, String layer, JsonNode entry) {
    JsonNode format = entry.isTextual() ? entry : entry.path("format");
    if (!format.isTextual()) {
      throw Problem.tensor(source.path(), layer, "no 'format' in its ComfyUI mark", "a string");
    }
    ComfyMark mark = new ComfyMark(source, layer, format.asText(), entry);
    mark.flag("full_precision_matrix_mult");
    return mark;
  }

  private JsonNode setting(String key) {
    JsonNode own = json.path(key);
    return own.isMissingNode() ? json.path("params").path(key) : own;
  }

  /** A setting that is true or false; false when it is not there. */
  boolean flag(String key) {
    JsonNode value = setting(key);
    if (value.isMissingNode() || value.isNull()) {
      return false;
    }
    if (!value.isBoolean()) {
      throw problem(key, value, "true or false");
    }
    return value.asBoolean();
  }

  /** A setting that is a number of at least 1. */
  int size(String key, int otherwise) {
    JsonNode value = setting(key);
    if (value.isMissingNode() || value.isNull()) {
      return otherwise;
    }
    if (!value.isIntegralNumber() || !value.canConvertToInt() || value.asInt() < 1) {
      throw problem(key, value, "a whole number of at least 1");
    }
    return value.asInt();
  }

  private RuntimeException problem(String key, JsonNode value, String expected) {
    return Problem.tensor(
        source.path(),
        layer,
        "'" + key + "' " + Problem.quote(value.toString()) + " in its ComfyUI mark",
        expected);
  }

  /** A few words: the format and how ComfyUI multiplies. */
  String describe() {
    return Problem.quote(format)
        + (flag("full_precision_matrix_mult") ? ", multiplied in full precision" : "");
  }
}
