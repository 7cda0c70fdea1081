package dev.gatun.quantize.config;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.gatun.GatunException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.TreeSet;

/**
 * Reads one JSON object key by key; null and a missing key are the same. Keys that nobody asked for
 * are refused by name.
 */
final class Fields {
  private final String what;
  private final ObjectNode json;
  private final Set<String> known = new LinkedHashSet<>();

  /**
   * @param what is being read, for messages: {@code BitsAndBytesConfig}
   */
  Fields(String what, JsonNode json) {
    this.what = what;
    if (!(json instanceof ObjectNode object)) {
      throw new GatunException(what + ": found " + describe(json) + ", expected a JSON object");
    }
    this.json = object;
  }

  /** A key that says what the object is; nothing else may stand there. */
  void constant(String key, String value) {
    Optional<String> found = text(key);
    if (found.isPresent() && !found.get().equals(value)) {
      throw wrong(key, "'" + found.get() + "'", "'" + value + "'");
    }
  }

  /** A key that is read and carries nothing of its own. */
  void ignore(String key) {
    known.add(key);
  }

  boolean has(String key) {
    return value(key).isPresent();
  }

  boolean bool(String key, boolean otherwise) {
    return value(key).map(v -> bool(key, v)).orElse(otherwise);
  }

  private boolean bool(String key, JsonNode value) {
    if (!value.isBoolean()) {
      throw wrong(key, describe(value), "true or false");
    }
    return value.booleanValue();
  }

  /** A number that Python holds as a float: {@code 6.0}, not {@code 6}. */
  double real(String key, double otherwise) {
    return value(key)
        .map(
            v -> {
              if (!v.isFloatingPointNumber()) {
                throw wrong(key, describe(v), "a float such as 6.0");
              }
              return v.doubleValue();
            })
        .orElse(otherwise);
  }

  Optional<Integer> integer(String key) {
    return value(key)
        .map(
            v -> {
              if (!v.isIntegralNumber() || !v.canConvertToInt()) {
                throw wrong(key, describe(v), "an integer");
              }
              return v.intValue();
            });
  }

  Optional<String> text(String key) {
    return value(key)
        .map(
            v -> {
              if (!v.isTextual()) {
                throw wrong(key, describe(v), "a string");
              }
              return v.textValue();
            });
  }

  /** One of a few words. */
  String word(String key, Collection<String> words, String otherwise) {
    String found = text(key).orElse(otherwise);
    if (!words.contains(found)) {
      throw wrong(key, "'" + found + "'", "one of " + String.join(", ", words));
    }
    return found;
  }

  TorchType type(String key, Collection<TorchType> allowed, TorchType otherwise) {
    return text(key).map(name -> TorchType.of(name, allowed, where(key))).orElse(otherwise);
  }

  /** A list of strings. */
  Optional<List<String>> names(String key) {
    return value(key)
        .map(
            v -> {
              if (!v.isArray()) {
                throw wrong(key, describe(v), "a list of strings");
              }
              List<String> names = new ArrayList<>();
              for (JsonNode name : v) {
                if (!name.isTextual()) {
                  throw wrong(key, describe(name), "strings only");
                }
                names.add(name.textValue());
              }
              return List.copyOf(names);
            });
  }

  /** One string or a list of strings. */
  Optional<List<String>> nameOrNames(String key) {
    Optional<JsonNode> value = value(key);
    return value.isPresent() && value.get().isTextual()
        ? Optional.of(List.of(value.get().textValue()))
        : names(key);
  }

  Optional<JsonNode> value(String key) {
    known.add(key);
    JsonNode value = json.get(key);
    return value == null || value.isNull() ? Optional.empty() : Optional.of(value);
  }

  /** Everything that has not been asked for, which then counts as known. */
  ObjectNode rest() {
    ObjectNode rest = JsonNodeFactory.instance.objectNode();
    json.properties().stream()
        .filter(entry -> !known.contains(entry.getKey()))
        .forEach(entry -> rest.set(entry.getKey(), entry.getValue()));
    rest.fieldNames().forEachRemaining(known::add);
    return rest;
  }

  /**
   * Refuses what nobody asked for.
   *
   * @throws GatunException names the first unknown key
   */
  void done() {
    json.fieldNames()
        .forEachRemaining(
            key -> {
              if (!known.contains(key)) {
                throw new GatunException(
                    what
                        + ": found the unknown key '"
                        + key
                        + "', expected only "
                        + String.join(", ", new TreeSet<>(known)));
              }
            });
  }

  GatunException wrong(String key, String found, String expected) {
    return new GatunException(where(key) + ": found " + found + ", expected " + expected);
  }

  private String where(String key) {
    return what + ": " + key;
  }

  static String describe(JsonNode value) {
    String text = value.isMissingNode() ? "nothing" : value.toString();
    return text.length() > 80 ? text.substring(0, 80) + "…" : text;
  }
}
