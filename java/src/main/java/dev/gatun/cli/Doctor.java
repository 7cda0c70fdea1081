package dev.gatun.cli;

import dev.gatun.Device;
import dev.gatun.kernel.Backend;
import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import picocli.CommandLine;
import picocli.CommandLine.Mixin;

/** {@code gatun doctor}: what this machine has, what is missing and what to do about it. */
@CommandLine.Command(
    name = "doctor",
    description =
        "Show the JDK, the native library, instruction sets, threads, GPU and every kernel; say what is missing.")
public final class Doctor implements Command {
  @Mixin private CommonOptions common = new CommonOptions();

  /** For {@link java.util.ServiceLoader}. */
  public Doctor() {}

  /** Something that is not there, and how to get it. */
  private record Missing(String what, String why, String todo) {}

  /** A kernel and the backend whose it is. */
  private record Row(String backend, Backend.Kernel kernel) {}

  @Override
  public Integer call() {
    List<Device.Probe> probes = Device.probe();
    List<Row> kernels = kernels(probes);
    List<Missing> missing = missing(probes);
    LibraryReport library = LibraryReport.make();
    if (common.json()) {
      common.printJson(json(probes, library, kernels, missing));
    } else {
      print(common.out(), probes, library, kernels, missing);
    }
    return 0;
  }

  private static boolean vectorModule() {
    return ModuleLayer.boot().findModule("jdk.incubator.vector").isPresent();
  }

  private static int threads() {
    return Runtime.getRuntime().availableProcessors();
  }

  private static List<Row> kernels(List<Device.Probe> probes) {
    List<Row> rows = new ArrayList<>();
    for (Device.Probe probe : probes) {
      if (probe.available()) {
        try (Device device = Device.of(probe.backend(), 1)) {
          device.backend().kernels().forEach(kernel -> rows.add(new Row(probe.backend(), kernel)));
        }
      }
    }
    return rows;
  }

  private static String best(List<Device.Probe> probes) {
    return probes.stream()
        .filter(Device.Probe::available)
        .map(Device.Probe::backend)
        .findFirst()
        .orElse("none");
  }

  private static List<Missing> missing(List<Device.Probe> probes) {
    List<Missing> missing = new ArrayList<>();
    for (Device.Probe probe : probes) {
      if (!probe.available()) {
        missing.add(
            new Missing("backend " + probe.backend(), probe.detail(), todo(probe.backend())));
      }
    }
    if (!vectorModule()) {
      missing.add(
          new Missing(
              "module jdk.incubator.vector",
              "this JVM was started without it",
              "start java with --add-modules jdk.incubator.vector"));
    }
    return missing;
  }

  private static String todo(String backend) {
    return switch (backend) {
      case "native" ->
          "build with a C compiler and CMake (mvn package), or set -Dgatun.library.path to the directory of libgatun";
      case "vector" -> "start java with --add-modules jdk.incubator.vector";
      case "cuda" ->
          "nothing, where there is no NVIDIA GPU; else add the gatun-cuda jar of this platform and CUDA release, or set"
              + " -Dgatun.cuda.library.path to the directory of libgatun_cuda";
      default -> "see the line above";
    };
  }

  private static Map<String, Object> json(
      List<Device.Probe> probes, LibraryReport library, List<Row> kernels, List<Missing> missing) {
    Map<String, Object> java = new LinkedHashMap<>();
    java.put("version", Runtime.version().toString());
    java.put("vendor", System.getProperty("java.vendor"));
    java.put("home", System.getProperty("java.home"));
    java.put("vectorModule", vectorModule());
    java.put("maxHeapBytes", Runtime.getRuntime().maxMemory());
    Map<String, Object> root = new LinkedHashMap<>();
    root.put("version", Version.number());
    root.put("java", java);
    root.put("os", System.getProperty("os.name"));
    root.put("arch", System.getProperty("os.arch"));
    root.put("threads", threads());
    root.put("library", library.json());
    root.put("best", best(probes));
    root.put("backends", probes.stream().map(Doctor::json).toList());
    GpuReport gpu = GpuReport.make(probes);
    root.put("gpu", gpu.json());
    root.put("withoutGpu", gpu.without());
    root.put("kernels", kernels.stream().map(Doctor::json).toList());
    root.put("missing", missing.stream().map(Doctor::json).toList());
    return root;
  }

  private static Map<String, Object> json(Device.Probe probe) {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("name", probe.backend());
    json.put("available", probe.available());
    json.put("detail", probe.detail());
    return json;
  }

  private static Map<String, Object> json(Row row) {
    Backend.Kernel kernel = row.kernel;
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("backend", row.backend);
    json.put("operation", Words.of(kernel.operation()));
    json.put("encoding", kernel.encoding().name());
    json.put("compute", kernel.compute().map(Words::of).orElse(null));
    json.put("isa", kernel.isa());
    json.put("name", kernel.name());
    return json;
  }

  private static Map<String, Object> json(Missing missing) {
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("what", missing.what);
    json.put("why", missing.why);
    json.put("do", missing.todo);
    return json;
  }

  private static void print(
      PrintWriter out,
      List<Device.Probe> probes,
      LibraryReport library,
      List<Row> kernels,
      List<Missing> missing) {
    out.println("gatun     " + Version.number());
    out.println(
        "java      "
            + Runtime.version()
            + ", "
            + System.getProperty("java.vendor")
            + ", "
            + System.getProperty("java.home"));
    out.println("vectors   jdk.incubator.vector is " + (vectorModule() ? "there" : "missing"));
    out.println("system    " + System.getProperty("os.name") + " " + System.getProperty("os.arch"));
    out.println(
        "threads   " + threads() + ", heap up to " + Units.bytes(Runtime.getRuntime().maxMemory()));
    GpuReport gpu = GpuReport.make(probes);
    library.print(out);
    gpu.print(out);
    for (Device.Probe probe : probes) {
      // Where the libraries were looked for is above.
      boolean said = Set.of("native", "cuda").contains(probe.backend()) && !probe.available();
      String detail = said ? "see above" : probe.detail();
      out.println(
          String.format(
              Locale.ROOT,
              "%-9s %s: %s",
              probe.backend(),
              probe.available() ? "available" : "missing",
              detail));
    }
    out.println("runs on   " + best(probes) + "; without a GPU on " + gpu.without());
    out.println();
    TextTable table = new TextTable("KERNEL", "BACKEND", "OPERATION", "ENCODING", "COMPUTE", "ISA");
    for (Row row : kernels) {
      Backend.Kernel k = row.kernel;
      table.row(
          k.name(),
          row.backend,
          Words.of(k.operation()),
          k.encoding(),
          k.compute().map(Words::of).orElse("-"),
          k.isa());
    }
    table.print(out);
    out.println();
    if (missing.isEmpty()) {
      out.println("Nothing is missing.");
    } else {
      out.println("Missing");
      missing.forEach(m -> out.println("  " + m.what + ": " + m.why + "; to do: " + m.todo));
    }
  }
}
