package dev.gatun.bindings;

/**
 * The libraries that can be looked for: their names, and how each shows that it is the right one.
 */
enum LibraryKind {
  /** The CPU's. */
  CPU(
      "gatun",
      NativeLibrary.PATH_PROPERTY,
      "gatun_abi_version",
      gatun_h.GATUN_ABI_VERSION(),
      "gatun-bindings with classifier "),
  /** The GPU's. */
  CUDA(
      "gatun_cuda",
      NativeLibrary.CUDA_PATH_PROPERTY,
      "gatun_cuda_abi_version",
      gatun_cuda_h.GATUN_CUDA_ABI_VERSION(),
      "gatun-cuda with classifier cuda13-");

  private final String baseName;
  private final String pathProperty;
  private final String versionFunction;
  private final int abi;
  private final String jar;

  LibraryKind(String baseName, String pathProperty, String versionFunction, int abi, String jar) {
    this.baseName = baseName;
    this.pathProperty = pathProperty;
    this.versionFunction = versionFunction;
    this.abi = abi;
    this.jar = jar;
  }

  /** {@code libgatun}: what people call it. */
  String title() {
    return "lib" + baseName;
  }

  /** {@code libgatun.so} on Linux. */
  String fileName() {
    return System.mapLibraryName(baseName);
  }

  /** The system property that names its file or directory. */
  String pathProperty() {
    return pathProperty;
  }

  /** The function without arguments that returns its ABI version. */
  String versionFunction() {
    return versionFunction;
  }

  /** The ABI version of the bindings. */
  int abi() {
    return abi;
  }

  /** The artifact that brings it for a platform. */
  String jar(String platform) {
    return jar + platform;
  }
}
