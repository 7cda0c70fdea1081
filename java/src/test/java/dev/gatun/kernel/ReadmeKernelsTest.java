package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;

import dev.gatun.Encoding;
import dev.gatun.ReadmeSection;
import dev.gatun.kernel.vector.VectorBackend;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;

/**
 * Keeps the README's table of kernels: {@code -Dgatun.readme=write} writes it anew, else a stale
 * one fails. The table is dispatch.c's, taken through the preprocessor with every instruction set
 * switched on, since the library itself lists those of its own architecture only.
 */
class ReadmeKernelsTest {
  private static final Path NATIVE = Path.of("..", "native");
  private static final List<String> COLUMNS =
      List.of("scalar", "avx2", "avx512", "amx", "neon", "vector");

  /** A row's name: adjacent string literals. */
  private static final Pattern NAME =
      Pattern.compile("\\.info = \\{[^}]*?((?:\"[^\"]*\"\\s*)+)\\}");

  /** What a kernel's name says. */
  private record Cell(String operation, Encoding encoding, String isa) {
    static Cell of(String name) {
      int tier = name.lastIndexOf("__");
      String stem = name.substring(0, tier);
      Encoding encoding =
          List.of(Encoding.values()).stream()
              .filter(e -> stem.endsWith("_" + e.name().toLowerCase(Locale.ROOT)))
              .findFirst()
              .orElseThrow(() -> new AssertionError("no encoding in " + name));
      String operation = stem.substring(0, stem.length() - encoding.name().length() - 1);
      return new Cell(operation.replaceFirst("_", " "), encoding, name.substring(tier + 2));
    }
  }

  /** The names of every row of the table in C, whatever this machine can compile. */
  private static List<String> nativeNames() throws IOException, InterruptedException {
    String compiler = System.getenv("CC") == null ? "cc" : System.getenv("CC");
    List<String> command = new ArrayList<>(List.of(compiler, "-E", "-P"));
    for (String isa : COLUMNS.subList(1, COLUMNS.size() - 1)) {
      boolean there = Files.exists(NATIVE.resolve("src/cpu/" + isa + "/kernels.inc"));
      command.add("-DGATUN_HAVE_" + isa.toUpperCase(Locale.ROOT) + "=" + (there ? 1 : 0));
    }
    command.add("-I" + NATIVE.resolve("include"));
    command.add("-I" + NATIVE.resolve("src"));
    command.add(NATIVE.resolve("src/cpu/dispatch.c").toString());
    Process process =
        new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start();
    String text = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as("%s", command).isZero();
    List<String> names = new ArrayList<>();
    Matcher rows = NAME.matcher(text);
    while (rows.find()) {
      names.add(rows.group(1).replaceAll("\"\\s*\"", "").strip().replace("\"", ""));
    }
    return names;
  }

  private static String table() throws IOException, InterruptedException {
    List<String> names = new ArrayList<>(nativeNames());
    try (VectorBackend vector = new VectorBackend(1)) {
      vector.kernels().forEach(kernel -> names.add(kernel.name()));
    }
    return table(names, COLUMNS);
  }

  private static String table(List<String> names, List<String> columns) {
    Map<String, Map<Encoding, Set<String>>> operations = new LinkedHashMap<>();
    for (String name : names) {
      Cell cell = Cell.of(name);
      operations
          .computeIfAbsent(cell.operation(), o -> new EnumMap<>(Encoding.class))
          .computeIfAbsent(cell.encoding(), e -> new TreeSet<>())
          .add(cell.isa());
    }
    Map<Map<Encoding, Set<String>>, String> alike = new LinkedHashMap<>();
    operations.forEach((operation, cells) -> alike.merge(cells, operation, (a, b) -> a + ", " + b));
    StringBuilder table = new StringBuilder("| operation | encodings |");
    columns.forEach(column -> table.append(' ').append(column).append(" |"));
    table.append("\n|").append(" --- |".repeat(2 + columns.size())).append('\n');
    Set<Encoding> all = operations.getOrDefault("pack", Map.of()).keySet();
    alike.forEach((cells, label) -> rows(label, cells, all, columns, table));
    return table.toString();
  }

  /** Names, or what is missing where that is less to read. */
  private static String label(List<Encoding> encodings, Set<Encoding> all) {
    List<Encoding> missing = all.stream().filter(e -> !encodings.contains(e)).toList();
    if (!all.containsAll(encodings) || missing.size() >= encodings.size()) {
      return names(encodings);
    }
    return missing.isEmpty() ? "all" : "all but " + names(missing);
  }

  private static String names(List<Encoding> encodings) {
    return encodings.stream().map(Encoding::name).collect(Collectors.joining(", "));
  }

  /** One row for all the encodings that have the same kernels. */
  private static void rows(
      String operation,
      Map<Encoding, Set<String>> cells,
      Set<Encoding> all,
      List<String> columns,
      StringBuilder table) {
    Map<Set<String>, List<Encoding>> groups = new LinkedHashMap<>();
    cells.forEach(
        (encoding, isas) -> groups.computeIfAbsent(isas, i -> new ArrayList<>()).add(encoding));
    groups.forEach(
        (isas, encodings) -> {
          table.append("| ").append(operation).append(" | ").append(label(encodings, all));
          for (String column : columns) {
            table.append(isas.contains(column) ? " | yes" : " | –");
          }
          table.append(" |\n");
        });
  }

  @Test
  void theTableInTheReadmeIsTheKernelTable() throws Exception {
    Native.require();
    ReadmeSection.keep("kernels", ReadmeKernelsTest.class, table());
  }

  /** The GPU library lists its kernels itself, on any machine that could build it. */
  @Test
  void theGpusTableInTheReadmeIsItsLibrarys() throws Exception {
    Cuda.requireLibrary();
    List<String> names = CudaTable.rows().stream().map(CudaTable.Row::name).toList();
    List<String> columns = names.stream().map(name -> Cell.of(name).isa()).distinct().toList();
    ReadmeSection.keep("kernels-cuda", ReadmeKernelsTest.class, table(names, columns));
  }

  @Test
  void theLibraryListsWhatTheSourcesList() throws Exception {
    Native.require();
    List<String> library = NativeBackend.table().stream().map(NativeBackend.Row::name).toList();
    Set<String> isas =
        library.stream().map(name -> Cell.of(name).isa()).collect(Collectors.toSet());
    assertThat(isas).isSubsetOf(COLUMNS);
    assertThat(nativeNames().stream().filter(name -> isas.contains(Cell.of(name).isa())))
        .containsExactlyElementsOf(library);
  }
}
