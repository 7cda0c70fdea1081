package dev.gatun;

import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Objects;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/**
 * What each layer of a model is multiplied in: the first rule whose glob matches its plain name
 * decides. As text: {@code *.query=i8,*.down=bf16,f32}.
 *
 * @param rules in the order in which they are asked
 * @param otherwise of layers that no rule matches
 */
public record ComputePlan(List<Rule> rules, Compute otherwise) {
  /**
   * One rule.
   *
   * @param glob {@code *} stands for any characters, dots included, {@code ?} for one
   * @param compute of the layers whose name it matches
   */
  public record Rule(String glob, Compute compute) {
    /** Refuses null. */
    public Rule {
      Objects.requireNonNull(glob, "glob");
      Objects.requireNonNull(compute, "compute");
    }

    boolean matches(String layer) {
      String regex =
          glob.chars()
              .mapToObj(
                  c -> c == '*' ? ".*" : c == '?' ? "." : Pattern.quote(String.valueOf((char) c)))
              .collect(Collectors.joining());
      return Pattern.compile(regex, Pattern.DOTALL).matcher(layer).matches();
    }
  }

  /** Copies the rules. */
  public ComputePlan {
    rules = List.copyOf(rules);
    Objects.requireNonNull(otherwise, "otherwise");
  }

  /** One compute type for every layer. */
  public static ComputePlan of(Compute compute) {
    return new ComputePlan(List.of(), compute);
  }

  /**
   * Reads the text form: rules {@code glob=compute} and at most one bare compute type, the one of
   * all other layers (F32 when there is none), separated by commas.
   *
   * @throws GatunException when it is none
   */
  public static ComputePlan parse(String text) {
    List<Rule> rules = new ArrayList<>();
    Compute otherwise = null;
    for (String part : text.split(",", -1)) {
      int at = part.lastIndexOf('=');
      if (at > 0) {
        rules.add(
            new Rule(part.substring(0, at).strip(), Compute.of(part.substring(at + 1).strip())));
      } else if (otherwise == null && at < 0) {
        otherwise = Compute.of(part.strip());
      } else {
        throw new GatunException(
            "compute plan: found '" + part + "' in '" + text + "', expected glob=compute");
      }
    }
    return new ComputePlan(rules, otherwise == null ? Compute.F32 : otherwise);
  }

  /** The compute type of a layer. */
  public Compute of(String layer) {
    for (Rule rule : rules) {
      if (rule.matches(layer)) {
        return rule.compute();
      }
    }
    return otherwise;
  }

  /** The text form. */
  @Override
  public String toString() {
    StringBuilder text = new StringBuilder();
    for (Rule rule : rules) {
      text.append(rule.glob()).append('=').append(rule.compute()).append(',');
    }
    return text.append(otherwise).toString().toLowerCase(Locale.ROOT);
  }
}
