package dev.gatun.kernel;

import dev.gatun.GatunException;

/** The backend on a GPU, where libgatun_cuda is found and there is one. */
public final class CudaProvider implements BackendProvider {
  private final int device;

  /** Of the first device, for {@link java.util.ServiceLoader}. */
  public CudaProvider() {
    this(0);
  }

  /** Of one device, by CUDA's index. */
  public CudaProvider(int device) {
    this.device = device;
  }

  @Override
  public String name() {
    return "cuda";
  }

  @Override
  public int rank() {
    return 30;
  }

  /** Most machines have no GPU, or do without libgatun_cuda. */
  @Override
  public boolean isExtra() {
    return true;
  }

  @Override
  public Availability probe() {
    CudaReport report = CudaReport.get();
    if (!report.missing().isEmpty()) {
      return new Availability(false, report.missing());
    }
    int count = report.gpus().size();
    return device < 0 || device >= count
        ? new Availability(
            false,
            "found device " + device + ", expected 0 to " + (count - 1) + ": " + report.gpus())
        : new Availability(true, report.describe());
  }

  @Override
  public Backend create(int threads) {
    Availability found = probe();
    if (!found.available()) {
      throw new GatunException("cuda: " + found.detail());
    }
    return new CudaBackend(device);
  }
}
