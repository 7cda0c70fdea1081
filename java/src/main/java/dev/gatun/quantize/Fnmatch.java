package dev.gatun.quantize;

import java.util.List;
import java.util.regex.Pattern;

/**
 * Python's {@code fnmatch}: {@code *} stands for any characters, dots included, {@code ?} for one,
 * {@code [abc]} and {@code [a-z]} for one of them, {@code [!abc]} for one that is none of them.
 */
final class Fnmatch {
  private Fnmatch() {}

  static boolean any(List<String> globs, String name) {
    return globs.stream().anyMatch(glob -> pattern(glob).matcher(name).matches());
  }

  static Pattern pattern(String glob) {
    StringBuilder regex = new StringBuilder();
    int i = 0;
    while (i < glob.length()) {
      char c = glob.charAt(i++);
      if (c == '*') {
        regex.append(".*");
      } else if (c == '?') {
        regex.append('.');
      } else if (c == '[' && end(glob, i) > 0) {
        int end = end(glob, i);
        String set = glob.substring(i, end).replace("\\", "\\\\").replace("[", "\\[");
        set = set.replace("&&", "&\\&");
        boolean not = set.startsWith("!");
        set = not ? set.substring(1) : set;
        set = set.startsWith("^") || set.startsWith("]") ? "\\" + set : set;
        regex.append(not ? "[^" : "[").append(set).append(']');
        i = end + 1;
      } else { // a bracket that is never closed stands for itself
        regex.append(Pattern.quote(String.valueOf(c)));
      }
    }
    return Pattern.compile(regex.toString(), Pattern.DOTALL);
  }

  /** Where the set that starts at {@code from} is closed; -1: nowhere. */
  private static int end(String glob, int from) {
    int first = from < glob.length() && glob.charAt(from) == '!' ? from + 1 : from;
    return glob.indexOf(']', first + 1); // a bracket in first place is one of the set
  }
}
