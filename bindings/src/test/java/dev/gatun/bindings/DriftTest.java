package dev.gatun.bindings;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.foreign.AddressLayout;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.GroupLayout;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.PaddingLayout;
import java.lang.foreign.SymbolLookup;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Fails when header, committed bindings and built library are no longer of one piece. */
class DriftTest {
  private static final Path ROOT = Path.of(System.getProperty("gatun.test.root", ".."));
  private static final String TOLD = "run bindings/regenerate.sh and commit what it writes";

  private static Path header() {
    return ROOT.resolve("native/include/gatun.h");
  }

  private static CHeader parsed() {
    try {
      return CHeader.parse(Files.readString(header()));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  @Test
  void provenanceNamesThisHeader() throws Exception {
    Properties provenance = new Properties();
    try (var in = Files.newBufferedReader(ROOT.resolve("bindings/PROVENANCE"))) {
      provenance.load(in);
    }
    byte[] hash = MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(header()));
    assertThat(HexFormat.of().formatHex(hash)).as(TOLD).isEqualTo(provenance.getProperty("sha256"));
    assertThat(provenance.getProperty("jextract")).isNotBlank();
    assertThat(provenance.getProperty("command")).contains("jextract @bindings/jextract.args");
  }

  @Test
  void everyFunctionHasTheHeadersSignature() throws Exception {
    assumeNative(); // the descriptors are in one class with the address
    NativeLibrary.load();
    Map<String, FunctionDescriptor> functions = parsed().functions();
    assertThat(functions).isNotEmpty();
    Map<String, FunctionDescriptor> bound = new LinkedHashMap<>();
    for (String name : functions.keySet()) {
      FunctionDescriptor d =
          (FunctionDescriptor) gatun_h.class.getMethod(name + "$descriptor").invoke(null);
      bound.put(
          name,
          FunctionDescriptor.of(
              plain(d.returnLayout().orElseThrow()),
              d.argumentLayouts().stream().map(DriftTest::plain).toArray(MemoryLayout[]::new)));
    }
    assertThat(bound).as(TOLD).isEqualTo(functions);
  }

  @Test
  void nothingIsBoundThatTheHeaderLacks() {
    List<String> bound = new ArrayList<>();
    for (Method method : gatun_h.class.getMethods()) {
      if (method.getName().endsWith("$descriptor")) {
        bound.add(method.getName().replace("$descriptor", ""));
      }
    }
    assertThat(bound).as(TOLD).containsExactlyInAnyOrderElementsOf(parsed().functions().keySet());
  }

  @Test
  void everyConstantHasTheHeadersValue() throws Exception {
    Map<String, Integer> constants = parsed().constants();
    assertThat(constants).containsKey("GATUN_ABI_VERSION").containsKey("GATUN_OK");
    Map<String, Integer> bound = new LinkedHashMap<>();
    for (String name : constants.keySet()) {
      bound.put(name, (Integer) gatun_h.class.getMethod(name).invoke(null));
    }
    assertThat(bound).as(TOLD).isEqualTo(constants);
  }

  @Test
  void everyStructHasTheHeadersFields() throws Exception {
    for (var struct : parsed().structs().entrySet()) {
      Map<String, MemoryLayout> bound = new LinkedHashMap<>();
      for (MemoryLayout member : layout(struct.getKey()).memberLayouts()) {
        if (!(member instanceof PaddingLayout)) {
          bound.put(member.name().orElseThrow(), plain(member));
        }
      }
      assertThat(bound).as(struct.getKey() + ": " + TOLD).isEqualTo(struct.getValue());
      assertThat(new ArrayList<>(bound.keySet()))
          .isEqualTo(new ArrayList<>(struct.getValue().keySet()));
    }
  }

  /**
   * The C compiler's own word on sizes and offsets: the program does not compile when one differs.
   */
  @Test
  void theCompilerLaysStructsOutAsTheBindingsDo(@TempDir Path scratch) throws Exception {
    assumeNative();
    StringBuilder program = new StringBuilder("#include <stddef.h>\n#include \"gatun.h\"\n");
    for (String struct : parsed().structs().keySet()) {
      GroupLayout layout = layout(struct);
      program.append(
          "_Static_assert(sizeof(%s) == %d, \"size of %s\");%n"
              .formatted(struct, layout.byteSize(), struct));
      for (MemoryLayout member : layout.memberLayouts()) {
        if (!(member instanceof PaddingLayout)) {
          String field = member.name().orElseThrow();
          program.append(
              "_Static_assert(offsetof(%s, %s) == %d, \"offset of %s.%s\");%n"
                  .formatted(
                      struct,
                      field,
                      layout.byteOffset(PathElement.groupElement(field)),
                      struct,
                      field));
        }
      }
    }
    Path source = Files.writeString(scratch.resolve("layout.c"), program);
    Compiler.compile("-std=c11", "-fsyntax-only", "-I" + header().getParent(), source.toString());
  }

  @Test
  void theBuiltLibraryHasEveryFunctionAndTheAbiVersion() {
    assumeNative();
    NativeLibrary.Result result = NativeLibrary.load();
    assertThat(result).as(result.describe()).isInstanceOf(NativeLibrary.Loaded.class);
    SymbolLookup lookup = SymbolLookup.loaderLookup();
    assertThat(parsed().functions().keySet())
        .allSatisfy(name -> assertThat(lookup.find(name)).as(name).isPresent());
    assertThat(gatun_h.gatun_abi_version()).isEqualTo(gatun_h.GATUN_ABI_VERSION());
  }

  /** A library that was built before the header changed has another hash in it. */
  @Test
  void theLibraryWasBuiltFromThisHeader() throws Exception {
    assumeNative();
    assertThat(NativeLibrary.load()).isInstanceOf(NativeLibrary.Loaded.class);
    String inLibrary =
        SymbolLookup.loaderLookup()
            .find("gatun_header_sha256")
            .orElseThrow(() -> new AssertionError("the library does not tell its header's hash"))
            .reinterpret(65)
            .getString(0, StandardCharsets.US_ASCII);
    byte[] hash = MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(header()));
    assertThat(inLibrary).as("build the library again").isEqualTo(HexFormat.of().formatHex(hash));
  }

  private static void assumeNative() {
    assumeTrue(
        "on".equals(System.getProperty("gatun.test.native")), "the native library is switched off");
  }

  private static GroupLayout layout(String struct) throws Exception {
    return (GroupLayout)
        Class.forName("dev.gatun.bindings." + struct).getMethod("layout").invoke(null);
  }

  /** Without name and target. */
  private static MemoryLayout plain(MemoryLayout layout) {
    return switch (layout) {
      case AddressLayout a -> a.withoutTargetLayout().withoutName();
      default -> layout.withoutName();
    };
  }
}
