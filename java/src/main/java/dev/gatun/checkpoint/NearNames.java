package dev.gatun.checkpoint;

import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;

/** Names that a user may have meant. */
final class NearNames {
  private static final int SHOWN = 3;
  private static final int LONGEST = 200;

  private record Candidate(String name, int distance) {}

  private NearNames() {}

  /** {@code "; nearest: 'a', 'b'"}; says so when there is nothing to choose from. */
  static String hint(String wanted, Collection<String> names) {
    if (names.isEmpty()) {
      return "; the checkpoint has none";
    }
    String key = wanted.toLowerCase(Locale.ROOT);
    List<Candidate> nearest =
        names.stream()
            .filter(name -> name.length() <= LONGEST)
            .limit(20_000)
            .map(name -> new Candidate(name, distance(key, name.toLowerCase(Locale.ROOT))))
            .sorted(Comparator.comparingInt(Candidate::distance))
            .limit(SHOWN)
            .toList();
    return nearest.stream()
        .map(candidate -> Problem.quote(candidate.name))
        .collect(Collectors.joining(", ", "; nearest: ", ""));
  }

  /** 0 when one holds the other, else Levenshtein's distance. */
  private static int distance(String a, String b) {
    if (!a.isEmpty() && (a.contains(b) || b.contains(a))) {
      return 0;
    }
    if (a.length() > LONGEST) {
      return Integer.MAX_VALUE;
    }
    int[] row = new int[b.length() + 1];
    for (int j = 0; j <= b.length(); j++) {
      row[j] = j;
    }
    for (int i = 1; i <= a.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j <= b.length(); j++) {
        int substitute = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(substitute, 1 + Math.min(row[j], row[j - 1]));
      }
    }
    return row[b.length()];
  }
}
