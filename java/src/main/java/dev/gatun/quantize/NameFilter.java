package dev.gatun.quantize;

import java.util.List;
import java.util.regex.Pattern;

/**
 * Which layers are quantized, by globs over the plain layer name: {@code *} stands for any
 * characters, dots included, {@code ?} for one.
 *
 * @param include when not empty, only these; else all but {@link #DEFAULT_EXCLUDE}
 * @param exclude never these
 */
public record NameFilter(List<String> include, List<String> exclude) {
  /**
   * What is left as it is unless it is included by name. A checkpoint does not say which
   * two-dimensional weights are embeddings; the libraries quantize linear layers only, and not the
   * output head.
   */
  public static final List<String> DEFAULT_EXCLUDE =
      List.of("*embed*", "*norm*", "*Norm*", "lm_head");

  /** Everything but the default exclusions. */
  public static final NameFilter DEFAULT = new NameFilter(List.of(), List.of());

  /** No layer at all. */
  public static final NameFilter NOTHING = new NameFilter(List.of(), List.of("*"));

  /** Copies the lists. */
  public NameFilter {
    include = List.copyOf(include);
    exclude = List.copyOf(exclude);
  }

  /** Whether a layer is to be quantized. */
  public boolean accepts(String layer) {
    boolean wanted = include.isEmpty() ? !any(DEFAULT_EXCLUDE, layer) : any(include, layer);
    return wanted && !any(exclude, layer);
  }

  /**
   * Whether a layer that something else has chosen is to be quantized: the default exclusions do
   * not count.
   */
  public boolean narrows(String layer) {
    return (include.isEmpty() || any(include, layer)) && !any(exclude, layer);
  }

  private static boolean any(List<String> globs, String layer) {
    return globs.stream().anyMatch(glob -> pattern(glob).matcher(layer).matches());
  }

  private static Pattern pattern(String glob) {
    StringBuilder regex = new StringBuilder();
    glob.chars()
        .forEach(
            c -> {
              switch (c) {
                case '*' -> regex.append(".*");
                case '?' -> regex.append('.');
                default -> regex.append(Pattern.quote(String.valueOf((char) c)));
              }
            });
    return Pattern.compile(regex.toString(), Pattern.DOTALL);
  }
}
