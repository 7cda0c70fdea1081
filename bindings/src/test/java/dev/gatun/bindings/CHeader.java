package dev.gatun.bindings;

import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.ValueLayout;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What a header of Gatun declares. The headers keep to fixed-width types, so that little C is
 * enough.
 */
record CHeader(
    Map<String, FunctionDescriptor> functions,
    Map<String, Map<String, MemoryLayout>> structs,
    Map<String, Integer> constants) {
  private static final Pattern COMMENT = Pattern.compile("/\\*.*?\\*/", Pattern.DOTALL);
  private static final Pattern FUNCTION =
      Pattern.compile("GATUN_API\\s+([\\w\\s]+?[\\s*]+)(gatun_\\w+)\\(([^)]*)\\);");
  private static final Pattern STRUCT =
      Pattern.compile("typedef struct (\\w+) \\{([^}]*)\\} \\1;", Pattern.DOTALL);
  private static final Pattern ENUM = Pattern.compile("enum\\s*\\{([^}]*)\\}", Pattern.DOTALL);
  private static final Pattern DEFINE = Pattern.compile("#define (GATUN_\\w+) (\\d+)");
  private static final Pattern DECLARATION =
      Pattern.compile("(.*?[\\s*])(\\w+)(?:\\[(\\d+)\\])?", Pattern.DOTALL);

  /**
   * @param structsOfOthers layouts of the structs of the headers that this one includes, by name
   */
  static CHeader parse(String source, Map<String, ? extends MemoryLayout> structsOfOthers) {
    String text = COMMENT.matcher(source).replaceAll(" ");
    Map<String, FunctionDescriptor> functions = new LinkedHashMap<>();
    Matcher f = FUNCTION.matcher(text);
    while (f.find()) {
      List<MemoryLayout> parameters = new ArrayList<>();
      for (String parameter : f.group(3).split(",")) {
        if (!parameter.strip().equals("void")) {
          parameters.add(type(declaration(parameter).group(1), structsOfOthers));
        }
      }
      functions.put(
          f.group(2),
          FunctionDescriptor.of(
              type(f.group(1), structsOfOthers), parameters.toArray(MemoryLayout[]::new)));
    }
    Map<String, Map<String, MemoryLayout>> structs = new LinkedHashMap<>();
    Matcher s = STRUCT.matcher(text);
    while (s.find()) {
      Map<String, MemoryLayout> fields = new LinkedHashMap<>();
      for (String field : s.group(2).split(";")) {
        if (!field.isBlank()) {
          Matcher d = declaration(field);
          MemoryLayout one = type(d.group(1), structsOfOthers);
          String many = d.group(3);
          fields.put(
              d.group(2),
              many == null ? one : MemoryLayout.sequenceLayout(Long.parseLong(many), one));
        }
      }
      structs.put(s.group(1), fields);
    }
    Map<String, Integer> constants = new LinkedHashMap<>();
    Matcher d = DEFINE.matcher(text);
    while (d.find()) {
      constants.put(d.group(1), Integer.valueOf(d.group(2)));
    }
    Matcher e = ENUM.matcher(text);
    while (e.find()) {
      for (String constant : e.group(1).split(",")) {
        if (!constant.isBlank()) {
          String[] nameAndValue = constant.split("=");
          constants.put(nameAndValue[0].strip(), Integer.valueOf(nameAndValue[1].strip()));
        }
      }
    }
    return new CHeader(functions, structs, constants);
  }

  private static Matcher declaration(String text) {
    Matcher d = DECLARATION.matcher(text.strip());
    if (!d.matches()) {
      throw new IllegalArgumentException("found '" + text + "', expected a type and a name");
    }
    return d;
  }

  private static MemoryLayout type(
      String text, Map<String, ? extends MemoryLayout> structsOfOthers) {
    String type = text.replace("const", " ").strip();
    if (type.endsWith("*")) {
      return ValueLayout.ADDRESS;
    }
    MemoryLayout struct = structsOfOthers.get(type);
    if (struct != null) {
      return struct;
    }
    return switch (type) {
      case "char" -> ValueLayout.JAVA_BYTE;
      case "int32_t", "gatun_status", "gatun_encoding" -> ValueLayout.JAVA_INT;
      case "int64_t",
          "gatun_cuda_ptr",
          "gatun_cuda_stream",
          "gatun_cuda_event",
          "gatun_cuda_graph" ->
          ValueLayout.JAVA_LONG;
      case "float" -> ValueLayout.JAVA_FLOAT;
      default ->
          throw new IllegalArgumentException(
              "found type '" + type + "', expected int32_t, int64_t, float or a pointer");
    };
  }
}
