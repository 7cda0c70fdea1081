package dev.gatun.cli;

import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.List;

/**
 * Rows of text in columns as wide as what they hold; columns whose heading begins with {@code >}
 * are right-aligned.
 */
final class TextTable {
  private static final String GAP = "  ";

  private final List<List<String>> rows = new ArrayList<>();
  private final boolean[] right;

  TextTable(String... headings) {
    right = new boolean[headings.length];
    List<String> names = new ArrayList<>();
    for (int i = 0; i < headings.length; i++) {
      right[i] = headings[i].startsWith(">");
      names.add(right[i] ? headings[i].substring(1) : headings[i]);
    }
    rows.add(names);
  }

  /** Adds a row of as many cells as there are headings. */
  TextTable row(Object... cells) {
    List<String> row = new ArrayList<>();
    for (Object cell : cells) {
      row.add(Units.line(String.valueOf(cell)));
    }
    if (row.size() != right.length) {
      throw new IllegalArgumentException(row.size() + " cells, expected " + right.length);
    }
    rows.add(row);
    return this;
  }

  /** Prints headings and rows, or nothing when there are no rows. */
  void print(PrintWriter out) {
    if (rows.size() == 1) {
      return;
    }
    int[] widths = new int[right.length];
    for (List<String> row : rows) {
      for (int i = 0; i < widths.length; i++) {
        widths[i] = Math.max(widths[i], row.get(i).length());
      }
    }
    for (List<String> row : rows) {
      StringBuilder line = new StringBuilder();
      for (int i = 0; i < widths.length; i++) {
        String padding = " ".repeat(widths[i] - row.get(i).length());
        line.append(right[i] ? padding + row.get(i) : row.get(i) + padding).append(GAP);
      }
      out.println(line.toString().stripTrailing());
    }
  }
}
