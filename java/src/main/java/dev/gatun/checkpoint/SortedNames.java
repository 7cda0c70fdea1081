package dev.gatun.checkpoint;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Optional;
import java.util.TreeMap;

/**
 * Names of tensors, found by how they begin or end without a look at every one of them: a header
 * may have a hundred thousand, and a search for each.
 */
final class SortedNames {
  private final NavigableMap<String, String> names = new TreeMap<>();
  private final NavigableMap<String, String> reversed = new TreeMap<>();

  SortedNames(Collection<String> names) {
    for (String name : names) {
      this.names.put(name, name);
      reversed.put(reverse(name), name);
    }
  }

  /** The names that begin so, in order. */
  List<String> startingWith(String prefix) {
    return startingWith(names, prefix, Integer.MAX_VALUE);
  }

  /** The name that ends so; empty where there is none or more than one. */
  Optional<String> onlyEndingWith(String suffix) {
    List<String> found = startingWith(reversed, reverse(suffix), 2);
    return found.size() == 1 ? Optional.of(found.get(0)) : Optional.empty();
  }

  /** A loop, not a stream: a stream would first count all names after the prefix. */
  private static List<String> startingWith(
      NavigableMap<String, String> sorted, String prefix, int most) {
    List<String> found = new ArrayList<>();
    for (Map.Entry<String, String> entry : sorted.tailMap(prefix, true).entrySet()) {
      if (found.size() == most || !entry.getKey().startsWith(prefix)) {
        break;
      }
      found.add(entry.getValue());
    }
    return found;
  }

  private static String reverse(String name) {
    return new StringBuilder(name).reverse().toString();
  }
}
