package dev.gatun.cli;

import dev.gatun.bindings.NativeLibrary;
import dev.gatun.bindings.gatun_h;
import java.io.PrintWriter;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * What is known of libgatun.
 *
 * @param looked every place where it was looked for, in order
 * @param path the file, when it is loaded
 * @param source where it was found, when it is loaded
 * @param abi its ABI version, when it is loaded
 * @param cpuFeatures what it found the processor to have, when it is loaded
 * @param isas the instruction set tiers that it can use here, when it is loaded
 * @param isa the tier that it uses, or why it uses none, when it is loaded
 */
record LibraryReport(
    List<NativeLibrary.Attempt> looked,
    @Nullable String path,
    @Nullable String source,
    @Nullable Integer abi,
    @Nullable String cpuFeatures,
    List<String> isas,
    @Nullable String isa) {

  /** Loads the library and asks it. */
  static LibraryReport make() {
    return switch (NativeLibrary.load()) {
      case NativeLibrary.Missing missing ->
          new LibraryReport(missing.attempts(), null, null, null, null, List.of(), null);
      case NativeLibrary.Loaded loaded ->
          new LibraryReport(
              loaded.attempts(),
              loaded.path().toString(),
              Words.of(loaded.source()).replace('_', ' '),
              gatun_h.gatun_abi_version(),
              gatun_h.gatun_cpu_features().getString(0),
              usable(),
              chosen());
    };
  }

  private static List<String> usable() {
    List<String> names = new ArrayList<>();
    for (int isa = gatun_h.GATUN_ISA_SCALAR(); isa <= gatun_h.GATUN_ISA_NEON(); isa++) {
      if (gatun_h.gatun_isa_check(isa) == gatun_h.GATUN_OK()) {
        names.add(gatun_h.gatun_isa_name(isa).getString(0));
      }
    }
    return names;
  }

  private static String chosen() {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment isa = arena.allocate(ValueLayout.JAVA_INT);
      return gatun_h.gatun_isa_default(isa) == gatun_h.GATUN_OK()
          ? gatun_h.gatun_isa_name(isa.get(ValueLayout.JAVA_INT, 0)).getString(0)
          : "none: " + gatun_h.gatun_last_error().getString(0);
    }
  }

  Map<String, Object> json() {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("loaded", path != null);
    json.put("path", path);
    json.put("source", source);
    json.put("abi", abi);
    json.put("expectedAbi", gatun_h.GATUN_ABI_VERSION());
    json.put("cpuFeatures", cpuFeatures);
    json.put("isas", isas);
    json.put("isa", isa);
    json.put("isaOverride", System.getenv("GATUN_ISA"));
    json.put("looked", json(looked));
    return json;
  }

  static List<Map<String, Object>> json(List<NativeLibrary.Attempt> looked) {
    List<Map<String, Object>> places = new ArrayList<>();
    for (NativeLibrary.Attempt attempt : looked) {
      Map<String, Object> place = new LinkedHashMap<>();
      place.put("place", attempt.place());
      place.put("outcome", attempt.outcome());
      places.add(place);
    }
    return places;
  }

  void print(PrintWriter out) {
    out.println(
        "library   "
            + (path == null ? "not loaded" : path + " (" + source + "), ABI " + abi)
            + "; looked at");
    looked.forEach(attempt -> out.println("            " + attempt));
    if (path != null) {
      String override = System.getenv("GATUN_ISA");
      out.println("cpu       " + cpuFeatures);
      out.println(
          "isa       "
              + String.join(", ", isas)
              + "; runs "
              + isa
              + (override == null ? "" : " (GATUN_ISA=" + override + ")"));
    }
  }
}
