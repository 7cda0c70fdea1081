package dev.gatun.kernel;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.gatun.Compute;
import dev.gatun.CudaDevice;
import dev.gatun.Device;
import dev.gatun.Encoding;
import dev.gatun.GatunException;
import dev.gatun.bindings.gatun_cuda_h;
import dev.gatun.bindings.gatun_h;
import java.lang.foreign.Arena;
import java.lang.foreign.ValueLayout;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** What libgatun_cuda answers on any machine, and what Gatun makes of it. */
class CudaLoadTest {
  @BeforeEach
  void library() {
    Cuda.requireLibrary();
  }

  private static void assumeNoGpu() {
    assumeTrue(CudaReport.get().gpus().isEmpty(), "there is a GPU");
  }

  @Test
  void itTellsItsVersionsWithoutADriver() {
    assertThat(gatun_cuda_h.gatun_cuda_abi_version())
        .isEqualTo(gatun_cuda_h.GATUN_CUDA_ABI_VERSION());
    assertThat(CudaReport.get().runtime()).isGreaterThanOrEqualTo(12_000);
    assertThat(CudaReport.version(13_020)).isEqualTo("13.2");
    assertThat(CudaReport.version(0)).isEqualTo("none");
  }

  @Test
  void itsKernelTableIsMadeOfWordsThatJavaKnows() {
    List<CudaTable.Row> rows = CudaTable.rows();
    assertThat(rows).extracting(CudaTable.Row::name).doesNotHaveDuplicates();
    List<Backend.Kernel> table = rows.stream().flatMap(row -> row.kernel().stream()).toList();
    assertThat(table).isNotEmpty();
    for (Encoding encoding : Encoding.values()) {
      if (encoding != Encoding.F8_E8M0) {
        for (Operation operation :
            List.of(Operation.PACK, Operation.DEQUANTIZE, Operation.LINEAR)) {
          assertThat(table)
              .as("%s of %s", operation, encoding)
              .anyMatch(k -> k.operation() == operation && k.encoding() == encoding);
        }
      }
    }
    assertThat(table).allSatisfy(k -> assertThat(k.name()).endsWith("__" + k.isa()));
  }

  @Test
  void withoutAGpuItAnswersNoDevice() {
    assumeNoGpu();
    try (Arena arena = Arena.ofConfined()) {
      assertThat(gatun_cuda_h.gatun_cuda_device_count(arena.allocate(ValueLayout.JAVA_INT)))
          .isEqualTo(gatun_h.GATUN_NO_DEVICE());
      assertThat(gatun_cuda_h.gatun_cuda_stream_create(0, arena.allocate(ValueLayout.JAVA_LONG)))
          .isEqualTo(gatun_h.GATUN_NO_DEVICE());
    }
    assertThat(CudaDevice.count()).isZero();
    assertThatThrownBy(() -> Device.cuda(0))
        .isInstanceOf(GatunException.class)
        .hasMessageStartingWith("backend cuda is not available: no GPU: ")
        .hasMessageNotContaining("\n");
    assertThatThrownBy(() -> Device.of("cuda"))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("no GPU");
    assertThatThrownBy(() -> new CudaProvider().create(1))
        .isInstanceOf(GatunException.class)
        .hasMessageContaining("no GPU");
    try (Device device = Device.best()) {
      assertThat(device.name()).isNotEqualTo("cuda");
      assertThat(device.refuses("cuda").orElseThrow()).contains("not available: no GPU");
    }
  }

  private static String way(Matrix matrix, long m, Compute compute) {
    return CudaReport.wouldRun(matrix, m, compute).orElse("nothing").replaceAll(":.*", "");
  }

  /** It looks at the description only, so that it needs no GPU; the weight is never touched. */
  @Test
  void itTellsHowAGpuWouldMultiply() {
    long n = 4096;
    long k = 4096;
    try (Arena arena = Arena.ofConfined()) {
      TestMatrices matrices = new TestMatrices(arena, 3, true);
      Granularity rows = Granularity.perChannel(k);
      Matrix nf4 =
          matrices.scaled(
              Encoding.NF4, n, k, CodeOrder.LOW_FIRST, Granularity.perGroup(k, 64), Encoding.F32);
      Matrix bytes = matrices.scaled(Encoding.I8, n, k, CodeOrder.LOW_FIRST, rows, Encoding.F32);
      boolean hopper = way(nf4, 1, Compute.BF16).startsWith("hopper");
      assertThat(way(nf4, 1, Compute.BF16)).isEqualTo(hopper ? "hopper_narrow" : "narrow");
      assertThat(way(nf4, 3, Compute.BF16)).isEqualTo(hopper ? "hopper_held" : "narrow");
      assertThat(way(nf4, 16, Compute.BF16)).isEqualTo(hopper ? "hopper_held" : "narrow");
      assertThat(way(nf4, 17, Compute.BF16)).isEqualTo(hopper ? "hopper_few" : "wide");
      assertThat(way(nf4, 64, Compute.BF16)).isEqualTo(hopper ? "hopper_few" : "wide");
      assertThat(way(nf4, 1, Compute.F32)).isEqualTo("general");
      assertThat(way(nf4, 512, Compute.BF16)).isNotEqualTo(way(nf4, 1, Compute.BF16));
      assertThat(way(bytes, 1, Compute.BF16)).isEqualTo("narrow");
      assertThat(way(bytes, 1, Compute.I8)).isEqualTo("widened");
      assertThat(way(bytes, 512, Compute.I8)).startsWith(hopper ? "hopper_codes" : "widened");
      assertThat(way(nf4, 1, Compute.F8_ROW)).isEqualTo("nothing");
      assertThat(way(nf4, 0, Compute.BF16)).isEqualTo("nothing");
      String why = CudaReport.wouldRun(nf4, 1, Compute.BF16).orElseThrow();
      assertThat(why).contains("rows of x").doesNotContain("\n");
    }
  }
}
