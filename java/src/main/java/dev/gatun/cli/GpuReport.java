package dev.gatun.cli;

import dev.gatun.Device;
import dev.gatun.bindings.NativeLibrary;
import dev.gatun.kernel.CudaGpu;
import dev.gatun.kernel.CudaReport;
import java.io.PrintWriter;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What is known of GPUs and of libgatun_cuda.
 *
 * @param cuda what the library told
 * @param looked every place where it was looked for, in order
 * @param without the backend that runs where there is no GPU
 */
record GpuReport(CudaReport cuda, List<NativeLibrary.Attempt> looked, String without) {

  /** Asks the library, if there is one. */
  static GpuReport make(List<Device.Probe> probes) {
    String without =
        probes.stream()
            .filter(p -> p.available() && !p.backend().equals("cuda"))
            .map(Device.Probe::backend)
            .findFirst()
            .orElse("none");
    return new GpuReport(CudaReport.get(), NativeLibrary.loadCuda().attempts(), without);
  }

  Map<String, Object> json() {
    Map<String, Object> library = new LinkedHashMap<>();
    library.put("loaded", !cuda.library().isEmpty());
    library.put("path", cuda.library().isEmpty() ? null : cuda.library());
    library.put("looked", LibraryReport.json(looked));
    List<Map<String, Object>> devices = new ArrayList<>();
    for (CudaGpu gpu : cuda.gpus()) {
      Map<String, Object> device = new LinkedHashMap<>();
      device.put("index", gpu.index());
      device.put("name", gpu.name());
      device.put("computeCapability", gpu.major() + "." + gpu.minor());
      device.put("multiprocessors", gpu.multiprocessors());
      device.put("l2Bytes", gpu.l2Bytes());
      device.put("memoryBytes", gpu.memoryBytes());
      device.put("freeBytes", gpu.freeBytes());
      devices.add(device);
    }
    Map<String, Object> json = new LinkedHashMap<>();
    json.put("available", cuda.missing().isEmpty());
    json.put("detail", cuda.missing().isEmpty() ? cuda.dense() : cuda.missing());
    json.put("driver", CudaReport.version(cuda.driver()));
    json.put("runtime", CudaReport.version(cuda.runtime()));
    json.put("library", library);
    json.put("devices", devices);
    return json;
  }

  void print(PrintWriter out) {
    if (cuda.library().isEmpty()) {
      out.println("gpu       none: libgatun_cuda is not loaded; looked at");
      looked.forEach(attempt -> out.println("            " + attempt));
      return;
    }
    if (!cuda.missing().isEmpty()) {
      out.println("gpu       " + cuda.missing().replaceFirst("^no GPU", "none"));
    }
    for (CudaGpu gpu : cuda.gpus()) {
      out.println(
          "gpu       "
              + gpu.index()
              + ": "
              + gpu
              + ", "
              + gpu.multiprocessors()
              + " multiprocessors, "
              + Units.bytes(gpu.memoryBytes())
              + ", "
              + Units.bytes(gpu.freeBytes())
              + " free");
    }
    out.println(
        "cuda      "
            + cuda.library()
            + ", CUDA "
            + CudaReport.version(cuda.runtime())
            + ", driver for "
            + CudaReport.version(cuda.driver())
            + (cuda.dense().isEmpty() ? "" : "; " + cuda.dense()));
  }
}
