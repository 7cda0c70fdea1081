package dev.gatun.bindings;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.lang.foreign.AddressLayout;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.GroupLayout;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemoryLayout.PathElement;
import java.lang.foreign.PaddingLayout;
import java.lang.foreign.SequenceLayout;
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
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Fails when headers, committed bindings and built libraries are no longer of one piece. */
class DriftTest {
  private static final Path ROOT = Path.of(System.getProperty("gatun.test.root", ".."));
  private static final String TOLD = "run bindings/regenerate.sh and commit what it writes";

  /** A header and what was made of it. */
  enum Header {
    CPU("gatun.h", "", gatun_h.class, "gatun_header_sha256"),
    CUDA("gatun_cuda.h", ".cuda", gatun_cuda_h.class, "gatun_cuda_header_sha256");

    final String name;
    final String suffix;
    final Class<?> bound;
    final String hashSymbol;

    Header(String name, String suffix, Class<?> bound, String hashSymbol) {
      this.name = name;
      this.suffix = suffix;
      this.bound = bound;
      this.hashSymbol = hashSymbol;
    }

    Path path() {
      return ROOT.resolve("native/include").resolve(name);
    }

    String sha256() throws Exception {
      byte[] hash = MessageDigest.getInstance("SHA-256").digest(Files.readAllBytes(path()));
      return HexFormat.of().formatHex(hash);
    }

    CHeader parsed() throws Exception {
      return CHeader.parse(Files.readString(path()), Map.of("gatun_matrix", gatun_matrix.layout()));
    }

    private boolean wasBuilt() {
      if (this == CPU) {
        return "on".equals(System.getProperty("gatun.test.native"));
      }
      String directory = System.getProperty(NativeLibrary.CUDA_PATH_PROPERTY, "");
      return Files.exists(Path.of(directory, LibraryKind.CUDA.fileName()));
    }

    /** Skips the test where the library was not built; fails it where it was and is not found. */
    void require() {
      assumeTrue(wasBuilt(), () -> "the library of " + name + " was not built");
      NativeLibrary.Result result = this == CPU ? NativeLibrary.load() : NativeLibrary.loadCuda();
      assertThat(result).as(result.describe()).isInstanceOf(NativeLibrary.Loaded.class);
    }
  }

  @ParameterizedTest
  @EnumSource
  void provenanceNamesThisHeader(Header header) throws Exception {
    Properties provenance = new Properties();
    try (var in = Files.newBufferedReader(ROOT.resolve("bindings/PROVENANCE" + header.suffix))) {
      provenance.load(in);
    }
    assertThat(header.sha256()).as(TOLD).isEqualTo(provenance.getProperty("sha256"));
    assertThat(provenance.getProperty("jextract")).isNotBlank();
    assertThat(provenance.getProperty("command"))
        .contains("jextract @bindings/jextract" + header.suffix + ".args");
  }

  @ParameterizedTest
  @EnumSource
  void everyFunctionHasTheHeadersSignature(Header header) throws Exception {
    header.require(); // the descriptors are in one class with the address
    Map<String, FunctionDescriptor> functions = header.parsed().functions();
    assertThat(functions).isNotEmpty();
    Map<String, FunctionDescriptor> bound = new LinkedHashMap<>();
    for (String name : functions.keySet()) {
      FunctionDescriptor d =
          (FunctionDescriptor) header.bound.getMethod(name + "$descriptor").invoke(null);
      bound.put(
          name,
          FunctionDescriptor.of(
              plain(d.returnLayout().orElseThrow()),
              d.argumentLayouts().stream().map(DriftTest::plain).toArray(MemoryLayout[]::new)));
    }
    assertThat(bound).as(TOLD).isEqualTo(functions);
  }

  @ParameterizedTest
  @EnumSource
  void nothingIsBoundThatTheHeaderLacks(Header header) throws Exception {
    List<String> bound = new ArrayList<>();
    for (Method method : header.bound.getMethods()) {
      if (method.getName().endsWith("$descriptor")) {
        bound.add(method.getName().replace("$descriptor", ""));
      }
    }
    assertThat(bound)
        .as(TOLD)
        .containsExactlyInAnyOrderElementsOf(header.parsed().functions().keySet());
  }

  @ParameterizedTest
  @EnumSource
  void everyConstantHasTheHeadersValue(Header header) throws Exception {
    Map<String, Integer> constants = header.parsed().constants();
    assertThat(constants).isNotEmpty();
    Map<String, Integer> bound = new LinkedHashMap<>();
    for (String name : constants.keySet()) {
      bound.put(name, (Integer) header.bound.getMethod(name).invoke(null));
    }
    assertThat(bound).as(TOLD).isEqualTo(constants);
  }

  @ParameterizedTest
  @EnumSource
  void everyStructHasTheHeadersFields(Header header) throws Exception {
    for (var struct : header.parsed().structs().entrySet()) {
      Map<String, MemoryLayout> bound = new LinkedHashMap<>();
      for (MemoryLayout member : layout(struct.getKey()).memberLayouts()) {
        if (!(member instanceof PaddingLayout)) {
          bound.put(member.name().orElseThrow(), plain(member));
        }
      }
      Map<String, MemoryLayout> declared = new LinkedHashMap<>(struct.getValue());
      declared.replaceAll((name, layout) -> plain(layout));
      assertThat(bound).as(struct.getKey() + ": " + TOLD).isEqualTo(declared);
      assertThat(new ArrayList<>(bound.keySet())).isEqualTo(new ArrayList<>(declared.keySet()));
    }
  }

  /**
   * The C compiler's own word on sizes and offsets: the program does not compile when one differs.
   */
  @ParameterizedTest
  @EnumSource
  void theCompilerLaysStructsOutAsTheBindingsDo(Header header, @TempDir Path scratch)
      throws Exception {
    Header.CPU.require();
    StringBuilder program =
        new StringBuilder("#include <stddef.h>%n#include \"%s\"%n".formatted(header.name));
    for (String struct : header.parsed().structs().keySet()) {
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
    Compiler.compile(
        "-std=c11", "-fsyntax-only", "-I" + header.path().getParent(), source.toString());
  }

  @ParameterizedTest
  @EnumSource
  void theBuiltLibraryHasEveryFunction(Header header) throws Exception {
    header.require();
    SymbolLookup lookup = SymbolLookup.loaderLookup();
    assertThat(header.parsed().functions().keySet())
        .allSatisfy(name -> assertThat(lookup.find(name)).as(name).isPresent());
  }

  /** A library that was built before the header changed has another hash in it. */
  @ParameterizedTest
  @EnumSource
  void theLibraryWasBuiltFromThisHeader(Header header) throws Exception {
    header.require();
    String inLibrary =
        SymbolLookup.loaderLookup()
            .find(header.hashSymbol)
            .orElseThrow(() -> new AssertionError("the library does not tell its header's hash"))
            .reinterpret(65)
            .getString(0, StandardCharsets.US_ASCII);
    assertThat(inLibrary).as("build the library again").isEqualTo(header.sha256());
  }

  private static GroupLayout layout(String struct) throws Exception {
    return (GroupLayout)
        Class.forName("dev.gatun.bindings." + struct).getMethod("layout").invoke(null);
  }

  /** Without name and target. */
  private static MemoryLayout plain(MemoryLayout layout) {
    return switch (layout) {
      case AddressLayout a -> a.withoutTargetLayout().withoutName();
      case SequenceLayout s ->
          MemoryLayout.sequenceLayout(s.elementCount(), plain(s.elementLayout()));
      default -> layout.withoutName();
    };
  }
}
